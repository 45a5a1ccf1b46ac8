/* The table of `table.py`, compiled, and the callables that users touch.

   The pure table is the reference: what it does, this does, with the same results, the same order of eviction, the same
   counters and errors; the tests drive both. What differs is the cost, and that user code (__hash__, __eq__) runs here
   while a key or a tag is looked up and never else.

   Whoever changes a table holds the lock of its owner, as with the pure one. Whoever reads it holds the GIL, or on a build
   without it the table's own mutex (a critical section); so does whoever changes it. */

#include "_clock.h"
#include "_fields.h"
#include "_lock.h"
#include "_scope.h"
#include "_eviction.h"
#include "_expiry.h"

#define UNBOUNDED ((int64_t)1 << 62)
#define DUE_PER_STORE 4

#define FAST(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL

typedef struct {
    PyObject_HEAD
    scope_t *entries;
    PyObject *maxsize;
    PyObject *tags;      /* living tags by name */
    PyObject *postponed; /* a list of what a finalizer asked for in the middle of a step, or NULL */
    PyObject *clock;     /* a callable that returns nanoseconds */
    PyObject *weakrefs;
    module_t *module;
    int64_t most_entries, most_weight;
    int64_t size, weight, epoch, fresh_until_ns;
    eviction_t eviction;
    expiry_t expiry;
    queue_t gone; /* what left and was not taken yet */
    sleep_t sleep;
    int clock_mode;
    int is_busy;
} table_t;

#include "_lookup.h"

/* Making ---------------------------------------------------------------------------------------------------------- */

static int
bound_of(module_t *module, const char *name, PyObject *bound, int64_t *result)
{
    if (bound == Py_None) {
        *result = UNBOUNDED;
        return 0;
    }
    if (PyBool_Check(bound) || !PyLong_Check(bound)) {
        PyErr_Format(module->configuration_error, "%s must be an int or None, got %R", name, bound);
        return -1;
    }
    int overflow;
    int64_t value = (int64_t)PyLong_AsLongLongAndOverflow(bound, &overflow);
    if (value < 1 && overflow <= 0) {
        PyErr_Format(module->configuration_error,
                     "%s must be at least 1, got %R; use None for no bound, NoCache() for no cache", name, bound);
        return -1;
    }
    *result = overflow > 0 || value > UNBOUNDED ? UNBOUNDED : value;
    return 0;
}

static PyObject *
table_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    module_t *module = module_of(type);
    table_t *table = (table_t *)type->tp_alloc(type, 0);
    if (table == NULL) {
        return NULL;
    }
    eviction_init(&table->eviction, 0, UNBOUNDED);
    table->expiry.next_ns = FOREVER_NS;
    table->module = module;
    table->most_entries = table->most_weight = UNBOUNDED;
    table->fresh_until_ns = FOREVER_NS;
    table->maxsize = Py_NewRef(Py_None);
    table->clock_mode = CLOCK_IS_MONOTONIC;
    table->clock = Py_NewRef(module->monotonic_ns);
    table->entries = scope_make(module->scope, NULL);
    table->tags = PyDict_New();
    if (table->entries == NULL || table->tags == NULL) {
        Py_DECREF(table);
        return NULL;
    }
    return (PyObject *)table;
}

static int
table_init(table_t *table, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"maxsize", "max_weight", "eviction", NULL};
    PyObject *maxsize, *max_weight, *eviction;
    int64_t most_entries, most_weight;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "$OOO:Table", names, &maxsize, &max_weight, &eviction) ||
        bound_of(table->module, "maxsize", maxsize, &most_entries) < 0 ||
        bound_of(table->module, "max_weight", max_weight, &most_weight) < 0) {
        return -1;
    }
    int is_lru = PyUnicode_Check(eviction) && PyUnicode_CompareWithASCIIString(eviction, "lru") == 0;
    if (!is_lru && !(PyUnicode_Check(eviction) && PyUnicode_CompareWithASCIIString(eviction, "s3fifo") == 0)) {
        PyErr_Format(table->module->configuration_error, "eviction must be \"s3fifo\" or \"lru\", got %R", eviction);
        return -1;
    }
    if (table->size) {
        PyErr_SetString(PyExc_RuntimeError, "a table with entries cannot be made anew");
        return -1;
    }
    eviction_free(&table->eviction);
    eviction_init(&table->eviction, is_lru, most_weight < UNBOUNDED ? most_weight : most_entries);
    table->most_entries = most_entries;
    table->most_weight = most_weight;
    Py_SETREF(table->maxsize, Py_NewRef(maxsize));
    return 0;
}

/* Visit what the entries hold as if the table held it: they are not known to the collector. One that somebody else holds,
   too, keeps what it has, so it is not visited; all is found when it has been let go. */
static int
table_visit_queue(const queue_t *queue, visitproc visit, void *arg)
{
    for (entry_t *entry = queue->first; entry != NULL; entry = entry->after) {
        if (Py_REFCNT(entry) == 1) {
            Py_VISIT(entry->slot);
            Py_VISIT(entry->value);
            Py_VISIT(entry->policy);
            if (entry->extra != NULL) {
                Py_VISIT(entry->extra->tags);
            }
        }
    }
    return 0;
}

static int
table_traverse(table_t *table, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(table));
    Py_VISIT(table->clock);
    Py_VISIT(table->tags);
    Py_VISIT(table->postponed);
    int result = table_visit_queue(&table->gone, visit, arg);
    for (int index = 0; !result && index < QUEUES; index++) {
        result = table_visit_queue(eviction_queue(&table->eviction, index), visit, arg);
    }
    return result;
}

static entry_t *
queue_take_first(queue_t *queue)
{
    entry_t *entry = queue->first;
    if (entry != NULL) {
        queue_remove(queue, entry);
    }
    return entry;
}

/* Let go of every entry, one after another: each may run a finalizer that looks at the table. */
static void
table_drop_all(table_t *table)
{
    entry_t *entry;
    for (int index = 0; index < QUEUES; index++) {
        while ((entry = eviction_queue(&table->eviction, index)->first) != NULL) {
            eviction_discard(&table->eviction, entry);
            expiry_discard(entry);
            scope_remove(entry->scope, entry);
            entry->flags |= DEAD;
            table->size--;
            table->weight -= weight_of(entry);
            Py_DECREF(entry);
        }
    }
    while ((entry = queue_take_first(&table->gone)) != NULL) {
        Py_DECREF(entry);
    }
}

/* Empty it, and leave it usable: a finalizer of the same garbage may still do so. */
static int
table_clear(table_t *table)
{
    table_drop_all(table);
    if (table->tags != NULL) {
        PyDict_Clear(table->tags);
    }
    Py_CLEAR(table->postponed);
    return 0;
}

static void
table_dealloc(table_t *table)
{
    PyTypeObject *type = Py_TYPE(table);
    PyObject_GC_UnTrack(table);
    if (table->weakrefs != NULL) {
        PyObject_ClearWeakRefs((PyObject *)table);
    }
    table_clear(table);
    Py_CLEAR(table->clock);
    Py_CLEAR(table->tags);
    Py_CLEAR(table->entries);
    Py_CLEAR(table->maxsize);
    eviction_free(&table->eviction);
    expiry_free(&table->expiry);
    type->tp_free(table);
    Py_DECREF(type);
}

/* Tags ------------------------------------------------------------------------------------------------------------ */

/* Count one entry less for each tag; one that nothing carries is forgotten. */
static void
tags_detach(table_t *table, PyObject *tags)
{
    for (Py_ssize_t index = 0; index < PyTuple_GET_SIZE(tags); index++) {
        tag_t *tag = (tag_t *)PyTuple_GET_ITEM(tags, index);
        if (--tag->count == 0 && !tag->is_dead && table->tags != NULL) {
            if (PyDict_DelItem(table->tags, tag->name) < 0) {
                PyErr_Clear();
            }
        }
    }
}

/* Return the living generation of `name`, a new reference, made if nothing carries it yet. */
static tag_t *
tags_generation(table_t *table, PyObject *name)
{
    PyObject *tag = PyDict_GetItemWithError(table->tags, name);
    if (tag != NULL || PyErr_Occurred()) {
        return (tag_t *)Py_XNewRef(tag);
    }
    tag_t *made = PyObject_GC_New(tag_t, table->module->tag);
    if (made == NULL) {
        return NULL;
    }
    made->name = Py_NewRef(name);
    made->count = 0;
    made->is_dead = 0;
    PyObject_GC_Track(made);
    if (PyDict_SetItem(table->tags, name, (PyObject *)made) < 0) {
        Py_DECREF(made);
        return NULL;
    }
    return made;
}

/* Attach `names` to an entry that carries none. */
static int
tags_attach(table_t *table, entry_t *entry, PyObject *names)
{
    PyObject *sequence = PySequence_Tuple(names);
    if (sequence == NULL) {
        return -1;
    }
    Py_ssize_t count = PyTuple_GET_SIZE(sequence);
    if (!count) {
        Py_DECREF(sequence);
        return 0;
    }
    PyObject *tags = entry_extra(entry) == NULL ? NULL : PyTuple_New(count);
    int64_t epoch = table->epoch; /* a tag's __hash__ may invalidate one that is attached already */
    Py_ssize_t index = 0;
    for (; tags != NULL && index < count; index++) {
        tag_t *tag = tags_generation(table, PyTuple_GET_ITEM(sequence, index));
        if (tag == NULL) {
            break;
        }
        tag->count++;
        PyTuple_SET_ITEM(tags, index, (PyObject *)tag);
    }
    Py_DECREF(sequence);
    if (tags == NULL || index < count) {
        if (tags != NULL) {
            PyObject *type, *value, *traceback;
            PyErr_Fetch(&type, &value, &traceback);
            if (_PyTuple_Resize(&tags, index) == 0) {
                tags_detach(table, tags);
                Py_DECREF(tags);
            }
            PyErr_Restore(type, value, traceback);
        }
        return -1;
    }
    Py_XSETREF(entry->extra->tags, tags);
    entry->extra->epoch = epoch;
    entry->flags |= TAGGED;
    return 0;
}

/* Steps ----------------------------------------------------------------------------------------------------------- */

/* Note that an entry has left; its reference goes to `gone`. */
static void
table_let_go(table_t *table, entry_t *entry, uint8_t why)
{
    entry->flags |= (uint8_t)(DEAD | why);
    table->size--;
    table->weight -= weight_of(entry);
    if (entry->extra != NULL && entry->extra->tags != NULL) {
        tags_detach(table, entry->extra->tags);
    }
    expiry_discard(entry);
    queue_append(&table->gone, entry);
}

static void
table_take_out(table_t *table, entry_t *entry, uint8_t why)
{
    if (entry->queue != NO_QUEUE) {
        scope_remove(entry->scope, entry);
        eviction_discard(&table->eviction, entry);
        table_let_go(table, entry, why);
    }
}

static void
table_make_room(table_t *table, int64_t weight)
{
    while (table->size >= table->most_entries || (table->size && table->weight + weight > table->most_weight)) {
        entry_t *entry = eviction_victim(&table->eviction);
        scope_remove(entry->scope, entry);
        table_let_go(table, entry, WAS_EVICTED);
    }
}

static void
table_reclaim(table_t *table, int64_t now_ns)
{
    int most = DUE_PER_STORE;
    entry_t *entry;
    while (now_ns >= table->expiry.next_ns && (entry = expiry_due(&table->expiry, now_ns, &most)) != NULL) {
        table_take_out(table, entry, WAS_EXPIRED);
    }
}

/* Finish what both kinds of storing have in common. */
static void
table_settle(table_t *table, entry_t *entry)
{
    Py_INCREF(entry);
    table->size++;
    table->weight += weight_of(entry);
    if (expiry_add(&table->expiry, entry) < 0) {
        PyErr_Clear(); /* it is reclaimed when it is met */
    }
}

static int
table_replace(table_t *table, entry_t *old, entry_t *entry, PyObject *tags)
{
    if (tags != NULL && tags_attach(table, entry, tags) < 0) {
        return -1;
    }
    if (old->queue == NO_QUEUE) { /* a tag's __hash__ took it out */
        if (scope_reserve(entry->scope) < 0) {
            return -1;
        }
        eviction_admit(&table->eviction, entry);
        scope_insert(entry->scope, entry);
        table_settle(table, entry);
        return 0;
    }
    scope_replace(entry->scope, old, entry);
    eviction_replace(&table->eviction, old, entry);
    table_settle(table, entry);
    table_let_go(table, old, 0);
    if (table->weight > table->most_weight) {
        table_make_room(table, 0);
    }
    return 0;
}

/* Store `entry`; `tags` is NULL for none. */
static int
table_store(table_t *table, entry_t *entry, PyObject *tags, int64_t now_ns)
{
    if (now_ns >= table->expiry.next_ns) {
        table_reclaim(table, now_ns);
    }
    if (entry->scope == NULL) {
        entry->scope = (scope_t *)Py_NewRef((PyObject *)table->entries);
    }
    entry->hash = hash_of(entry->slot);
    if (entry->hash == -1) {
        return -1;
    }
    entry_t *old = scope_find(entry->scope, entry->slot, entry->hash);
    if (old != NULL) {
        return table_replace(table, old, entry, tags);
    }
    if (PyErr_Occurred() || scope_reserve(entry->scope) < 0) {
        return -1;
    }
    table_make_room(table, weight_of(entry));
    eviction_admit(&table->eviction, entry);
    if (tags != NULL && tags_attach(table, entry, tags) < 0) {
        eviction_discard(&table->eviction, entry);
        return -1;
    }
    scope_insert(entry->scope, entry);
    table_settle(table, entry);
    return 0;
}

static int
table_postpone(table_t *table, PyObject *step)
{
    if (step == NULL) {
        return -1;
    }
    if (table->postponed == NULL) {
        table->postponed = PyList_New(0);
    }
    int result = table->postponed == NULL ? -1 : PyList_Append(table->postponed, step);
    Py_DECREF(step);
    return result;
}

/* Store an entry that was made at an epoch. What a key's __hash__ and __eq__ invalidate, or clear, meanwhile may be what it
   was made of, so that it leaves again. */
static int
table_put_since(table_t *table, int64_t epoch, entry_t *entry, PyObject *tags, int64_t now_ns)
{
    int result = table_store(table, entry, tags == Py_None ? NULL : tags, now_ns);
    if (!result && table->epoch != epoch) {
        table_take_out(table, entry, 0);
    }
    return result;
}

/* Do one of: (entry, why) is taken out; (entry, tags, now_ns, epoch) is put. */
static int
table_take_step(table_t *table, PyObject *step)
{
    entry_t *entry = (entry_t *)PyTuple_GET_ITEM(step, 0);
    if (PyTuple_GET_SIZE(step) == 2) {
        table_take_out(table, entry, (uint8_t)PyLong_AsLong(PyTuple_GET_ITEM(step, 1)));
        return 0;
    }
    return table_put_since(table, PyLong_AsLongLong(PyTuple_GET_ITEM(step, 3)), entry, PyTuple_GET_ITEM(step, 1),
                           PyLong_AsLongLong(PyTuple_GET_ITEM(step, 2)));
}

/* Do what user code asked for in the middle of a step: all of it, whatever of it fails, since an entry that was stored
   later would come back after an invalidation. The first error stays set, that of the step itself before others; one for
   the whole program (Ctrl+C) before all. */
static int
table_catch_up(table_t *table, int result)
{
    table->is_busy = 1;
    while (PyList_GET_SIZE(table->postponed)) {
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        PyObject *step = Py_NewRef(PyList_GET_ITEM(table->postponed, 0));
        int is_off_the_list = PyList_SetSlice(table->postponed, 0, 1, NULL) == 0;
        if (!is_off_the_list || table_take_step(table, step) < 0) {
            result = -1;
        }
        Py_DECREF(step);
        if (type != NULL) {
            restore_unless_interrupted(type, value, traceback);
        }
        if (!is_off_the_list) {
            break;
        }
    }
    table->is_busy = 0;
    return result;
}

static int
table_put(table_t *table, entry_t *entry, PyObject *tags, int64_t now_ns)
{
    if (table->is_busy) {
        PyObject *step = Py_BuildValue("(OOLL)", entry, tags == NULL ? Py_None : tags, (long long)now_ns,
                                       (long long)table->epoch);
        return table_postpone(table, step);
    }
    table->is_busy = 1;
    int result = table_put_since(table, table->epoch, entry, tags, now_ns);
    table->is_busy = 0;
    return table->postponed != NULL && PyList_GET_SIZE(table->postponed) ? table_catch_up(table, result) : result;
}

/* Methods --------------------------------------------------------------------------------------------------------- */

static entry_t *
as_entry(table_t *table, PyObject *object)
{
    if (Py_TYPE(object) != table->module->entry) {
        PyErr_Format(PyExc_TypeError, "a compiled table takes compiled entries, got %.100s", Py_TYPE(object)->tp_name);
        return NULL;
    }
    return (entry_t *)object;
}

static int
takes(const char *name, Py_ssize_t nargs, Py_ssize_t wanted)
{
    if (nargs != wanted) {
        PyErr_Format(PyExc_TypeError, "%s takes %zd arguments, got %zd", name, wanted, nargs);
        return -1;
    }
    return 0;
}

/* Return the entry of a key, borrowed, or NULL, perhaps with an error. */
static entry_t *
table_entry_of(table_t *table, PyObject *key)
{
    scope_t *scope;
    PyObject *slot = split_key(table->module, key, &scope);
    Py_hash_t hash = hash_of(slot);
    return hash == -1 ? NULL : scope_find(scope == NULL ? table->entries : scope, slot, hash);
}

static PyObject *
table_find(table_t *table, PyObject *key)
{
    PyObject *entry;
    Py_BEGIN_CRITICAL_SECTION(table);
    entry = Py_XNewRef((PyObject *)table_entry_of(table, key));
    Py_END_CRITICAL_SECTION();
    return entry != NULL || PyErr_Occurred() ? entry : Py_NewRef(Py_None);
}

static int
entry_is_alive(table_t *table, entry_t *entry, int64_t now_ns)
{
    if ((entry->flags & DEAD) || now_ns >= deadline_ns_of(entry)) {
        return 0;
    }
    if ((entry->flags & TAGGED) && entry->extra->epoch != table->epoch) {
        PyObject *tags = entry->extra->tags;
        for (Py_ssize_t index = 0; index < PyTuple_GET_SIZE(tags); index++) {
            if (((tag_t *)PyTuple_GET_ITEM(tags, index))->is_dead) {
                return 0;
            }
        }
        entry->extra->epoch = table->epoch;
    }
    return 1;
}

static PyObject *
table_is_alive(table_t *table, PyObject *const *args, Py_ssize_t nargs)
{
    int64_t now_ns;
    entry_t *entry = takes("is_alive", nargs, 2) < 0 ? NULL : as_entry(table, args[0]);
    if (entry == NULL || as_int64(args[1], &now_ns) < 0) {
        return NULL;
    }
    int is_alive;
    Py_BEGIN_CRITICAL_SECTION(table);
    is_alive = entry_is_alive(table, entry, now_ns);
    Py_END_CRITICAL_SECTION();
    return PyBool_FromLong(is_alive);
}

static PyObject *
table_fits(table_t *table, PyObject *number)
{
    int overflow;
    int64_t weight = (int64_t)PyLong_AsLongLongAndOverflow(number, &overflow);
    if (weight == -1 && PyErr_Occurred()) {
        return NULL;
    }
    return PyBool_FromLong(overflow < 0 || (!overflow && weight <= table->most_weight));
}

static PyObject *
table_put_method(table_t *table, PyObject *const *args, Py_ssize_t nargs)
{
    int64_t now_ns;
    entry_t *entry = takes("put", nargs, 3) < 0 ? NULL : as_entry(table, args[0]);
    if (entry == NULL || as_int64(args[2], &now_ns) < 0) {
        return NULL;
    }
    if (entry->queue != NO_QUEUE || (entry->flags & DEAD)) {
        PyErr_SetString(PyExc_ValueError, "an entry is put once");
        return NULL;
    }
    int has_no_tags = PyTuple_CheckExact(args[1]) && PyTuple_GET_SIZE(args[1]) == 0;
    int result;
    Py_BEGIN_CRITICAL_SECTION(table);
    result = table_put(table, entry, has_no_tags ? NULL : args[1], now_ns);
    Py_END_CRITICAL_SECTION();
    return result < 0 ? NULL : Py_NewRef(Py_None);
}

/* Take an entry out, later if the table is in the middle of a step. */
static int
table_take_out_soon(table_t *table, entry_t *entry, uint8_t why)
{
    if (table->is_busy) {
        return table_postpone(table, Py_BuildValue("(Oi)", entry, (int)why));
    }
    table_take_out(table, entry, why);
    return 0;
}

static PyObject *
table_remove(table_t *table, PyObject *key)
{
    int result;
    entry_t *entry;
    Py_BEGIN_CRITICAL_SECTION(table);
    entry = table_entry_of(table, key);
    if (entry == NULL && PyErr_Occurred()) {
        result = -1;
    }
    else {
        table->epoch += table->is_busy; /* so that what is being stored, perhaps under `key`, leaves again */
        result = entry == NULL ? 0 : table_take_out_soon(table, entry, 0);
    }
    Py_END_CRITICAL_SECTION();
    return result < 0 ? NULL : PyBool_FromLong(entry != NULL);
}

static PyObject *
table_take_out_method(table_t *table, PyObject *const *args, Py_ssize_t nargs)
{
    entry_t *entry = takes("take_out", nargs, 2) < 0 ? NULL : as_entry(table, args[0]);
    if (entry == NULL) {
        return NULL;
    }
    uint8_t why = args[1] == table->module->evicted ? WAS_EVICTED : args[1] == table->module->expired ? WAS_EXPIRED : 0;
    int result;
    Py_BEGIN_CRITICAL_SECTION(table);
    result = table_take_out_soon(table, entry, why);
    Py_END_CRITICAL_SECTION();
    return result < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *
table_touch(table_t *table, PyObject *object)
{
    entry_t *entry = as_entry(table, object);
    if (entry == NULL) {
        return NULL;
    }
    Py_BEGIN_CRITICAL_SECTION(table);
    eviction_touch(&table->eviction, entry);
    Py_END_CRITICAL_SECTION();
    return Py_NewRef(Py_None);
}

static int
append_queue(PyObject *list, const queue_t *queue)
{
    for (entry_t *entry = queue->first; entry != NULL; entry = entry->after) {
        if (PyList_Append(list, (PyObject *)entry) < 0) {
            return -1;
        }
    }
    return 0;
}

static PyObject *
table_living(table_t *table, PyObject *Py_UNUSED(ignored))
{
    PyObject *list = PyList_New(0);
    int result = 0;
    Py_BEGIN_CRITICAL_SECTION(table);
    if (list != NULL) {
        for (int index = 0; index < QUEUES && !result; index++) {
            result = append_queue(list, eviction_queue(&table->eviction, index)) < 0;
        }
    }
    Py_END_CRITICAL_SECTION();
    if (result) {
        Py_CLEAR(list);
    }
    return list;
}

static PyObject *
table_invalidate_tag(table_t *table, PyObject *name)
{
    PyObject *tag = NULL;
    int result = 0;
    Py_BEGIN_CRITICAL_SECTION(table);
    table->epoch++;
    tag = Py_XNewRef(PyDict_GetItemWithError(table->tags, name));
    if (tag != NULL) {
        ((tag_t *)tag)->is_dead = 1;
        result = PyDict_DelItem(table->tags, name);
    }
    Py_END_CRITICAL_SECTION();
    Py_XDECREF(tag);
    return result < 0 || PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

static PyObject *
table_count_of(table_t *table, PyObject *name)
{
    PyObject *tag = PyDict_GetItemWithError(table->tags, name);
    if (tag == NULL && PyErr_Occurred()) {
        return NULL;
    }
    return PyLong_FromSsize_t(tag == NULL ? 0 : ((tag_t *)tag)->count);
}

static PyObject *
table_get_needs_touch(table_t *table, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(table->eviction.is_lru);
}

static PyObject *
table_get_gone(table_t *table, void *Py_UNUSED(closure))
{
    PyObject *gone = PyList_New(0);
    int result = 0;
    Py_BEGIN_CRITICAL_SECTION(table);
    result = gone == NULL ? -1 : append_queue(gone, &table->gone);
    Py_END_CRITICAL_SECTION();
    if (result < 0) {
        Py_CLEAR(gone);
    }
    return gone;
}

static int
table_set_gone(table_t *table, PyObject *gone, void *Py_UNUSED(closure))
{
    if (gone == NULL || !PyList_CheckExact(gone) || PyList_GET_SIZE(gone)) {
        PyErr_SetString(PyExc_TypeError, "gone can be emptied only");
        return -1;
    }
    queue_t taken = table->gone;
    table->gone = (queue_t){NULL, NULL};
    entry_t *entry;
    while ((entry = queue_take_first(&taken)) != NULL) {
        Py_DECREF(entry);
    }
    return 0;
}

static PyObject *
table_get_clock(table_t *table, void *Py_UNUSED(closure))
{
    return Py_NewRef(table->clock);
}

static int
table_set_clock(table_t *table, PyObject *clock, void *Py_UNUSED(closure))
{
    if (clock == NULL || !PyCallable_Check(clock)) {
        PyErr_SetString(PyExc_TypeError, "clock_ns must be a callable");
        return -1;
    }
    table->clock_mode = clock == table->module->monotonic_ns   ? CLOCK_IS_MONOTONIC
                        : clock == table->module->suspended_ns ? CLOCK_COUNTS_SLEEP
                                                               : CLOCK_IS_CALLABLE;
    Py_XSETREF(table->clock, Py_NewRef(clock));
    return 0;
}

static PyMemberDef table_members[] = {
    {"entries", T_OBJECT_EX, offsetof(table_t, entries), READONLY, NULL},
    {"maxsize", T_OBJECT_EX, offsetof(table_t, maxsize), 0, NULL},
    {"size", T_LONGLONG, offsetof(table_t, size), READONLY, NULL},
    {"weight", T_LONGLONG, offsetof(table_t, weight), READONLY, NULL},
    {"epoch", T_LONGLONG, offsetof(table_t, epoch), 0, NULL},
    {"fresh_until_ns", T_LONGLONG, offsetof(table_t, fresh_until_ns), 0, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(table_t, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef table_getset[] = {
    {"needs_touch", (getter)table_get_needs_touch, NULL, NULL, NULL},
    {"gone", (getter)table_get_gone, (setter)table_set_gone, NULL, NULL},
    {"clock_ns", (getter)table_get_clock, (setter)table_set_clock, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef table_methods[] = {
    {"find", (PyCFunction)table_find, METH_O, "Return the entry of a key, alive or not, or None."},
    {"is_alive", FAST(table_is_alive), "Tell whether an entry may still be served at this time."},
    {"fits", (PyCFunction)table_fits, METH_O, "Tell whether an entry of this weight can be stored at all."},
    {"put", FAST(table_put_method), "Store an entry, with tags, at this time."},
    {"remove", (PyCFunction)table_remove, METH_O, "Take the entry of a key out; tell whether there was one."},
    {"take_out", FAST(table_take_out_method), "Take an entry out, unless it has left already."},
    {"touch", (PyCFunction)table_touch, METH_O, "Let eviction know that an entry was used."},
    {"living", (PyCFunction)table_living, METH_NOARGS, "Return all entries."},
    {"invalidate_tag", (PyCFunction)table_invalidate_tag, METH_O, "Make every entry that carries a tag dead."},
    {"count_of", (PyCFunction)table_count_of, METH_O, "Return how many entries carry a tag."},
    {"hit", FAST(table_hit), "Return the value at a slot if the clock is all that it takes, else MISSING."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot table_slots[] = {
    {Py_tp_doc, "Entries by key, within bounds; see the pure `Table`."},
    {Py_tp_new, table_new},
    {Py_tp_init, table_init},
    {Py_tp_dealloc, table_dealloc},
    {Py_tp_traverse, table_traverse},
    {Py_tp_clear, table_clear},
    {Py_tp_members, table_members},
    {Py_tp_getset, table_getset},
    {Py_tp_methods, table_methods},
    {0, NULL},
};

static PyType_Spec table_spec = {
    .name = "credenza.memory._table.Table",
    .basicsize = sizeof(table_t),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = table_slots,
};

#include "_quick.h"
#include "_store.h"
#include "_calls.h"
#include "_records.h"

/* The module ------------------------------------------------------------------------------------------------------ */

static int
add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **type)
{
    *type = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    return *type == NULL ? -1 : PyModule_AddType(module, *type);
}

static int
import_names(module_t *state)
{
    static const char *const names[][3] = {
        {"credenza.sentinel", "MISSING", NULL},       {"credenza.clock", "monotonic_ns", NULL},
        {"credenza.clock", "suspended_ns", NULL},     {"credenza.errors", "ConfigurationError", NULL},
        {"credenza.events", "EventKind", "EVICTED"},  {"credenza.events", "EventKind", "EXPIRED"},
        {"credenza.tiers.base", "Get", NULL},
    };
    PyObject **places[] = {&state->missing,             &state->monotonic_ns, &state->suspended_ns,
                           &state->configuration_error, &state->evicted,      &state->expired,
                           (PyObject **)&state->get};
    for (size_t index = 0; index < sizeof(places) / sizeof(*places); index++) {
        PyObject *module = PyImport_ImportModule(names[index][0]);
        PyObject *object = module == NULL ? NULL : PyObject_GetAttrString(module, names[index][1]);
        Py_XDECREF(module);
        if (object != NULL && names[index][2] != NULL) {
            Py_SETREF(object, PyObject_GetAttrString(object, names[index][2]));
        }
        if (object == NULL) {
            return -1;
        }
        *places[index] = object;
    }
    if (!PyType_Check(state->get) || !PyType_IsSubtype(state->get, &PyTuple_Type)) {
        PyErr_SetString(PyExc_TypeError, "Get must be a type of tuples");
        return -1;
    }
    return 0;
}

static int
module_exec(PyObject *module)
{
    module_t *state = PyModule_GetState(module);
    crc_prepare(state->crc_tables);
    const struct {
        PyObject **place;
        const char *text;
    } names[] = {
        {&state->idle_ttl_ns, "idle_ttl_ns"}, {&state->name, "__name__"},     {&state->qualname, "__qualname__"},
        {&state->acquire, "acquire"},         {&state->release, "release"},   {&state->set, "set"},
        {&state->fences, "fences"},           {&state->events, "events"},     {&state->listeners, "listeners"},
        {&state->registers, "registers"},
    };
    for (size_t index = 0; index < sizeof(names) / sizeof(*names); index++) {
        *names[index].place = PyUnicode_InternFromString(names[index].text);
        if (*names[index].place == NULL) {
            return -1;
        }
    }
    state->empty = PyTuple_New(0);
    if (state->empty == NULL || import_names(state) < 0) {
        return -1;
    }
    if (add_type(module, &entry_spec, &state->entry) < 0 || add_type(module, &scope_spec, &state->scope) < 0 ||
        add_type(module, &tag_spec, &state->tag) < 0 || add_type(module, &tally_spec, &state->tally) < 0 ||
        add_type(module, &table_spec, &state->table) < 0 || add_type(module, &hit_spec, &state->hit) < 0 ||
        add_type(module, &call_spec, &state->call) < 0 || add_type(module, &shortcut_spec, &state->shortcut) < 0 ||
        add_type(module, &store_spec, &state->store) < 0 || add_type(module, &lock_spec, &state->lock_type) < 0 ||
        add_type(module, &state_spec, &state->state_fields) < 0 ||
        add_type(module, &flight_spec, &state->flight_fields) < 0) {
        return -1;
    }
    return 0;
}

/* A module's state begins with its references. */
#define REFERENCES (offsetof(module_t, free_hits) / sizeof(PyObject *))

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    PyObject **references = PyModule_GetState(module);
    for (size_t index = 0; index < REFERENCES; index++) {
        Py_VISIT(references[index]);
    }
    return 0;
}

static int
module_clear(PyObject *module)
{
    PyObject **references = PyModule_GetState(module);
    for (size_t index = 0; index < REFERENCES; index++) {
        Py_CLEAR(references[index]);
    }
    return 0;
}

static void
module_free(void *module)
{
    hits_free(PyModule_GetState(module));
    module_clear(module);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
    {0, NULL},
};

static struct PyModuleDef table_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "credenza.memory._table",
    .m_doc = "The table, compiled.",
    .m_size = sizeof(module_t),
    .m_methods = records_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC
PyInit__table(void)
{
    return PyModuleDef_Init(&table_module);
}
