/* Scopes: hash tables of entries, with open addressing and linear probing.

   Keys are the user's: their __eq__ may raise, run for long, let other threads in, and change this very table. So a look-up
   that had to call it begins again if entries have moved meanwhile. Nothing but a look-up calls it. */

#ifndef CREDENZA_SCOPE_H
#define CREDENZA_SCOPE_H

#include "_entry.h"

#define FEWEST_PLACES 8
#define MOST_BEGINNINGS 1000

/* Spread a hash over the places: that of an int is the int. */
static inline size_t
place_of(Py_hash_t hash, size_t mask)
{
    uint64_t spread = (uint64_t)hash * UINT64_C(0x9E3779B97F4A7C15);
    return (size_t)(spread >> 20) & mask;
}

static inline Py_hash_t
hash_of(PyObject *slot)
{
    if (PyUnicode_CheckExact(slot)) {
        Py_hash_t hash = ((PyASCIIObject *)slot)->hash;
        if (hash != -1) {
            return hash;
        }
    }
    return PyObject_Hash(slot);
}

static inline int
is_same_text(PyObject *one, PyObject *other)
{
    Py_ssize_t length = PyUnicode_GET_LENGTH(one);
    int kind = PyUnicode_KIND(one);
    return length == PyUnicode_GET_LENGTH(other) && kind == (int)PyUnicode_KIND(other) &&
           memcmp(PyUnicode_DATA(one), PyUnicode_DATA(other), (size_t)length * (size_t)kind) == 0;
}

/* Return the entry at `slot`, borrowed, or NULL; with an error set if __eq__ raised. */
static entry_t *
scope_find(scope_t *scope, PyObject *slot, Py_hash_t hash)
{
    int beginnings = 0;
again:
    if (beginnings++ == MOST_BEGINNINGS) {
        PyErr_SetString(PyExc_RuntimeError, "the cache changes whenever a key is compared");
        return NULL;
    }
    size_t mask = scope->mask;
    for (size_t place = place_of(hash, mask);; place = (place + 1) & mask) {
        entry_t *entry = scope->places[place];
        if (entry == NULL) {
            return NULL;
        }
        if (entry->hash != hash) {
            continue;
        }
        if (entry->slot == slot) {
            return entry;
        }
        if (PyUnicode_CheckExact(slot) && PyUnicode_CheckExact(entry->slot)) {
            if (is_same_text(entry->slot, slot)) {
                return entry;
            }
            continue;
        }
        uint64_t version = scope->version;
        Py_INCREF(entry);
        int is_equal = PyObject_RichCompareBool(entry->slot, slot, Py_EQ);
        int is_there = !(entry->flags & DEAD);
        Py_DECREF(entry); /* the last one only if it is not there any more */
        if (is_equal < 0) {
            return NULL;
        }
        if (is_equal && is_there) {
            return entry;
        }
        if (!is_there || scope->version != version) {
            goto again;
        }
    }
}

static void
scope_place(entry_t **places, size_t mask, entry_t *entry)
{
    size_t place = place_of(entry->hash, mask);
    while (places[place] != NULL) {
        place = (place + 1) & mask;
    }
    places[place] = entry;
}

static int
scope_resize(scope_t *scope, size_t size)
{
    entry_t **places = PyMem_Calloc(size, sizeof(entry_t *));
    if (places == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    if (scope->places != NULL) {
        for (size_t place = 0; place <= scope->mask; place++) {
            if (scope->places[place] != NULL) {
                scope_place(places, size - 1, scope->places[place]);
            }
        }
        PyMem_Free(scope->places);
    }
    scope->places = places;
    scope->mask = size - 1;
    scope->version++;
    return 0;
}

/* Make sure that one more entry has a place; the places are at most three quarters full. */
static int
scope_reserve(scope_t *scope)
{
    size_t size = scope->mask + 1;
    if ((size_t)scope->count + 1 <= size - size / 4) {
        return 0;
    }
    return scope_resize(scope, size * 2);
}

/* Put an entry in whose slot is not there; `scope_reserve` has made room. */
static void
scope_insert(scope_t *scope, entry_t *entry)
{
    scope_place(scope->places, scope->mask, entry);
    scope->count++;
}

static size_t
scope_place_of(const scope_t *scope, const entry_t *entry)
{
    size_t place = place_of(entry->hash, scope->mask);
    while (scope->places[place] != entry) {
        place = (place + 1) & scope->mask;
    }
    return place;
}

/* Put `entry` in the place of `old`, which has an equal slot. */
static void
scope_replace(scope_t *scope, entry_t *old, entry_t *entry)
{
    scope->places[scope_place_of(scope, old)] = entry;
}

/* Take an entry out that is there, and close the gap, so that nobody has to look over it. */
static void
scope_remove(scope_t *scope, entry_t *entry)
{
    entry_t **places = scope->places;
    size_t mask = scope->mask;
    size_t gap = scope_place_of(scope, entry);
    for (size_t place = (gap + 1) & mask; places[place] != NULL; place = (place + 1) & mask) {
        size_t home = place_of(places[place]->hash, mask);
        if (((place - home) & mask) >= ((place - gap) & mask)) {
            places[gap] = places[place];
            gap = place;
        }
    }
    places[gap] = NULL;
    scope->count--;
    scope->version++;
    if (mask + 1 > FEWEST_PLACES && (size_t)scope->count < (mask + 1) / 8) {
        if (scope_resize(scope, (mask + 1) / 2) < 0) {
            PyErr_Clear(); /* it stays as large as it is */
        }
    }
}

static scope_t *
scope_make(PyTypeObject *type, PyObject *name)
{
    scope_t *scope = (scope_t *)type->tp_alloc(type, 0);
    if (scope == NULL) {
        return NULL;
    }
    scope->name = Py_XNewRef(name);
    if (scope_resize(scope, FEWEST_PLACES) < 0) {
        Py_DECREF(scope);
        return NULL;
    }
    return scope;
}

static PyObject *
scope_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"name", NULL};
    PyObject *name;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "U:Scope", names, &name)) {
        return NULL;
    }
    return (PyObject *)scope_make(type, name);
}

static void
scope_dealloc(scope_t *scope)
{
    PyTypeObject *type = Py_TYPE(scope);
    if (scope->weakrefs != NULL) {
        PyObject_ClearWeakRefs((PyObject *)scope);
    }
    Py_XDECREF(scope->name);
    PyMem_Free(scope->places);
    type->tp_free(scope);
    Py_DECREF(type);
}

static PyObject *
scope_get(scope_t *scope, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs < 1 || nargs > 2) {
        PyErr_SetString(PyExc_TypeError, "get takes a slot and perhaps a default");
        return NULL;
    }
    entry_t *entry = NULL;
    Py_hash_t hash = hash_of(args[0]);
    if (hash == -1) {
        return NULL;
    }
    PyObject *result;
    Py_BEGIN_CRITICAL_SECTION(scope);
    entry = scope_find(scope, args[0], hash);
    result = Py_XNewRef((PyObject *)entry);
    Py_END_CRITICAL_SECTION();
    if (result == NULL && !PyErr_Occurred()) {
        result = Py_NewRef(nargs == 2 ? args[1] : Py_None);
    }
    return result;
}

static int
scope_contains(scope_t *scope, PyObject *slot)
{
    Py_hash_t hash = hash_of(slot);
    if (hash == -1) {
        return -1;
    }
    entry_t *entry;
    Py_BEGIN_CRITICAL_SECTION(scope);
    entry = scope_find(scope, slot, hash);
    Py_END_CRITICAL_SECTION();
    return entry != NULL ? 1 : PyErr_Occurred() ? -1 : 0;
}

static Py_ssize_t
scope_len(scope_t *scope)
{
    return scope->count;
}

static PyObject *
scope_values(scope_t *scope, PyObject *Py_UNUSED(ignored))
{
    PyObject *values = NULL;
    Py_BEGIN_CRITICAL_SECTION(scope);
    do { /* making a list may run a finalizer that changes the scope */
        Py_XSETREF(values, PyList_New(scope->count));
    } while (values != NULL && PyList_GET_SIZE(values) != scope->count);
    if (values != NULL) {
        Py_ssize_t index = 0;
        for (size_t place = 0; place <= scope->mask; place++) {
            if (scope->places[place] != NULL) {
                PyList_SET_ITEM(values, index++, Py_NewRef((PyObject *)scope->places[place]));
            }
        }
    }
    Py_END_CRITICAL_SECTION();
    return values;
}

/* Iterate over the slots as they are now. */
static PyObject *
scope_iter(scope_t *scope)
{
    PyObject *list = scope_values(scope, NULL);
    if (list == NULL) {
        return NULL;
    }
    for (Py_ssize_t index = 0; index < PyList_GET_SIZE(list); index++) {
        PyObject *entry = PyList_GET_ITEM(list, index);
        PyList_SET_ITEM(list, index, Py_NewRef(((entry_t *)entry)->slot));
        Py_DECREF(entry);
    }
    PyObject *iterator = PyObject_GetIter(list);
    Py_DECREF(list);
    return iterator;
}

static PyObject *
scope_repr(scope_t *scope)
{
    return scope->name == NULL ? PyUnicode_FromString("<entries>") : PyUnicode_FromFormat("<%U>", scope->name);
}

static PyObject *
scope_get_entries(scope_t *scope, void *Py_UNUSED(closure))
{
    return Py_NewRef((PyObject *)scope);
}

static PyObject *
scope_get_ignores_tags(scope_t *scope, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(scope->ignores_tags);
}

static int
scope_set_ignores_tags(scope_t *scope, PyObject *flag, void *Py_UNUSED(closure))
{
    int is_true = flag == NULL ? -1 : PyObject_IsTrue(flag);
    if (is_true < 0) {
        return -1;
    }
    scope->ignores_tags = is_true;
    return 0;
}

static PyMemberDef scope_members[] = {
    {"name", T_OBJECT_EX, offsetof(scope_t, name), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(scope_t, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef scope_getset[] = {
    {"entries", (getter)scope_get_entries, NULL, "The entries, by slot.", NULL},
    {"ignores_tags", (getter)scope_get_ignores_tags, (setter)scope_set_ignores_tags, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef scope_methods[] = {
    {"get", (PyCFunction)(void (*)(void))scope_get, METH_FASTCALL, "Return the entry at a slot, or the default."},
    {"values", (PyCFunction)scope_values, METH_NOARGS, "Return a list of all entries."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot scope_slots[] = {
    {Py_tp_doc, "The keys of one function, apart from all others, and their entries."},
    {Py_tp_new, scope_new},
    {Py_tp_dealloc, scope_dealloc},
    {Py_tp_repr, scope_repr},
    {Py_tp_iter, scope_iter},
    {Py_tp_members, scope_members},
    {Py_tp_getset, scope_getset},
    {Py_tp_methods, scope_methods},
    {Py_sq_length, scope_len},
    {Py_mp_length, scope_len},
    {Py_sq_contains, scope_contains},
    {0, NULL},
};

static PyType_Spec scope_spec = {
    .name = "credenza.memory._table.Scope",
    .basicsize = sizeof(scope_t),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = scope_slots,
};

#endif
