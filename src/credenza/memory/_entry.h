/* Entries, tags and counters. */

#ifndef CREDENZA_ENTRY_H
#define CREDENZA_ENTRY_H

#include "_common.h"

/* Return what few entries need, made at the first need; NULL with MemoryError. */
static extra_t *
entry_extra(entry_t *entry)
{
    if (entry->extra == NULL) {
        extra_t *extra = PyMem_Calloc(1, sizeof(extra_t));
        if (extra == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
        extra->expire_ns = entry->fresh_ns;
        extra->read_ns = entry->stored_ns;
        extra->weight = 1;
        entry->extra = extra;
    }
    return entry->extra;
}

static int
as_int64(PyObject *number, int64_t *result)
{
    int64_t value = (int64_t)PyLong_AsLongLong(number);
    if (value == -1 && PyErr_Occurred()) {
        return -1;
    }
    *result = value;
    return 0;
}

#define HEAVIEST (FOREVER_NS / 4)

/* Fill a new entry; steals nothing. */
static entry_t *
entry_make(module_t *module, PyObject *slot, scope_t *scope, PyObject *value, PyObject *policy, int64_t stored_ns,
           int64_t fresh_ns, int64_t load_ns, int64_t weight)
{
    entry_t *entry = PyObject_New(entry_t, module->entry);
    if (entry == NULL) {
        return NULL;
    }
    memset((char *)entry + offsetof(entry_t, slot), 0, sizeof(entry_t) - offsetof(entry_t, slot));
    entry->slot = Py_NewRef(slot);
    entry->value = Py_NewRef(value);
    entry->policy = Py_NewRef(policy);
    entry->scope = (scope_t *)Py_XNewRef((PyObject *)scope);
    entry->stored_ns = stored_ns;
    entry->fresh_ns = fresh_ns;
    if (load_ns >= 0 && load_ns < UINT32_MAX) {
        entry->load_ns = (uint32_t)load_ns;
    }
    else {
        entry->load_ns = UINT32_MAX;
        if (entry_extra(entry) == NULL) {
            Py_DECREF(entry);
            return NULL;
        }
        entry->extra->load_ns = load_ns;
    }
    if (weight != 1) {
        if (entry_extra(entry) == NULL) {
            Py_DECREF(entry);
            return NULL;
        }
        entry->extra->weight = weight;
    }
    return entry;
}

/* Split a key into its scope and its place there; both are borrowed. */
static inline PyObject *
split_key(module_t *module, PyObject *key, scope_t **scope)
{
    if (PyTuple_CheckExact(key) && PyTuple_GET_SIZE(key) == 2) {
        PyObject *first = PyTuple_GET_ITEM(key, 0);
        if (Py_TYPE(first) == module->scope) {
            *scope = (scope_t *)first;
            return PyTuple_GET_ITEM(key, 1);
        }
    }
    *scope = NULL;
    return key;
}

static PyObject *
entry_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"key", "value", "policy", "stored_ns", "fresh_ns", "load_ns", "weight", NULL};
    PyObject *key, *value, *policy;
    long long stored_ns, fresh_ns, load_ns;
    PyObject *number;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOLLLO!:Entry", names, &key, &value, &policy, &stored_ns, &fresh_ns,
                                     &load_ns, &PyLong_Type, &number)) {
        return NULL;
    }
    int overflow;
    int64_t weight = (int64_t)PyLong_AsLongLongAndOverflow(number, &overflow);
    if (overflow > 0 || weight > HEAVIEST) {
        weight = HEAVIEST; /* too heavy for any table, and no sum of weights overflows */
    }
    module_t *module = module_of(type);
    scope_t *scope;
    PyObject *slot = split_key(module, key, &scope);
    entry_t *entry = entry_make(module, slot, scope, value, policy, stored_ns, fresh_ns, load_ns, weight);
    if (entry == NULL) {
        return NULL;
    }
    int64_t idle_ns = 0;
    PyObject *idle = PyObject_GetAttr(policy, module->idle_ttl_ns);
    if (idle == NULL || as_int64(idle, &idle_ns) < 0 || (idle_ns && entry_extra(entry) == NULL)) {
        Py_XDECREF(idle);
        Py_DECREF(entry);
        return NULL;
    }
    Py_DECREF(idle);
    if (idle_ns) {
        entry->extra->idle_ns = idle_ns;
    }
    return (PyObject *)entry;
}

static void
entry_dealloc(entry_t *entry)
{
    PyTypeObject *type = Py_TYPE(entry);
    extra_t *extra = entry->extra;
    entry->extra = NULL;
    Py_XDECREF(entry->slot);
    Py_XDECREF(entry->value);
    Py_XDECREF(entry->policy);
    Py_XDECREF((PyObject *)entry->scope);
    if (extra != NULL) {
        Py_XDECREF(extra->tags);
        Py_XDECREF(extra->seen);
        PyMem_Free(extra);
    }
    PyObject_Free(entry);
    Py_DECREF(type);
}

static PyObject *
entry_get_key(entry_t *entry, void *Py_UNUSED(closure))
{
    if (entry->scope == NULL || entry->scope->name == NULL) {
        return Py_NewRef(entry->slot);
    }
    return PyTuple_Pack(2, (PyObject *)entry->scope, entry->slot);
}

static PyObject *
entry_get_value(entry_t *entry, void *Py_UNUSED(closure))
{
    return Py_NewRef(entry->value);
}

static int
entry_set_value(entry_t *entry, PyObject *value, void *Py_UNUSED(closure))
{
    if (value == NULL) {
        PyErr_SetString(PyExc_AttributeError, "value cannot be deleted");
        return -1;
    }
    PyObject *old = entry->value;
    entry->value = Py_NewRef(value);
    Py_DECREF(old);
    return 0;
}

static PyObject *
entry_get_fast_ns(entry_t *entry, void *Py_UNUSED(closure))
{
    if (entry->flags & DEAD) {
        return PyLong_FromLong(-1);
    }
    if ((entry->flags & SLOW) || ((entry->flags & TAGGED) && entry->scope->ignores_tags)) {
        return PyLong_FromLong(0);
    }
    return PyLong_FromLongLong(entry->fresh_ns);
}

static int
entry_set_fast_ns(entry_t *entry, PyObject *number, void *Py_UNUSED(closure))
{
    int64_t fast_ns;
    if (number == NULL || as_int64(number, &fast_ns) < 0) {
        if (number == NULL) {
            PyErr_SetString(PyExc_AttributeError, "fast_ns cannot be deleted");
        }
        return -1;
    }
    if (fast_ns != 0) {
        PyErr_SetString(PyExc_ValueError, "fast_ns can be set to 0 only: a hit then needs more than the clock");
        return -1;
    }
    entry->flags |= SLOW;
    return 0;
}

/* The numbers, by name. */
enum { EXPIRE_NS, READ_NS, RETRY_NS, LOAD_NS, WEIGHT, EPOCH, FAILURES };

static PyObject *
entry_get_number(entry_t *entry, void *which)
{
    const extra_t *extra = entry->extra;
    int64_t number = 0;
    switch ((int)(intptr_t)which) {
    case EXPIRE_NS:
        number = expire_ns_of(entry);
        break;
    case READ_NS:
        number = extra == NULL ? entry->stored_ns : extra->read_ns;
        break;
    case RETRY_NS:
        number = extra == NULL ? 0 : extra->retry_ns;
        break;
    case LOAD_NS:
        number = entry->load_ns == UINT32_MAX ? extra->load_ns : (int64_t)entry->load_ns;
        break;
    case WEIGHT:
        number = weight_of(entry);
        break;
    case EPOCH:
        number = extra == NULL ? 0 : extra->epoch;
        break;
    default:
        number = extra == NULL ? 0 : extra->failures;
    }
    return PyLong_FromLongLong(number);
}

static int
entry_set_number(entry_t *entry, PyObject *object, void *which)
{
    int64_t number;
    if (object == NULL) {
        PyErr_SetString(PyExc_AttributeError, "an entry's attribute cannot be deleted");
        return -1;
    }
    if (as_int64(object, &number) < 0) {
        return -1;
    }
    int name = (int)(intptr_t)which;
    extra_t *extra = entry->extra;
    if (name == READ_NS && (extra == NULL || !extra->idle_ns)) {
        return 0; /* only an idle ttl asks when an entry was read */
    }
    if (name == EPOCH && (extra == NULL || extra->tags == NULL)) {
        return 0; /* only tags ask for the epoch */
    }
    extra = entry_extra(entry);
    if (extra == NULL) {
        return -1;
    }
    switch (name) {
    case EXPIRE_NS:
        extra->expire_ns = number;
        break;
    case READ_NS:
        extra->read_ns = number;
        break;
    case RETRY_NS:
        extra->retry_ns = number;
        break;
    case EPOCH:
        extra->epoch = number;
        break;
    default:
        extra->failures = number;
    }
    return 0;
}

static PyObject *
entry_get_is_absent(entry_t *entry, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(entry->flags & ABSENT);
}

static int
entry_set_is_absent(entry_t *entry, PyObject *flag, void *Py_UNUSED(closure))
{
    int is_absent = flag == NULL ? -1 : PyObject_IsTrue(flag);
    if (is_absent < 0) {
        return -1;
    }
    entry->flags = (uint8_t)(is_absent ? (entry->flags | ABSENT | SLOW) : (entry->flags & ~ABSENT));
    return 0;
}

static PyObject *
entry_get_seen(entry_t *entry, void *Py_UNUSED(closure))
{
    if (entry->extra == NULL || entry->extra->seen == NULL) {
        return PyBytes_FromStringAndSize(NULL, 0);
    }
    return Py_NewRef(entry->extra->seen);
}

static int
entry_set_seen(entry_t *entry, PyObject *seen, void *Py_UNUSED(closure))
{
    if (seen == NULL || !PyBytes_CheckExact(seen)) {
        PyErr_SetString(PyExc_TypeError, "seen must be bytes");
        return -1;
    }
    if (PyBytes_GET_SIZE(seen) == 0 && entry->extra == NULL) {
        return 0;
    }
    extra_t *extra = entry_extra(entry);
    if (extra == NULL) {
        return -1;
    }
    Py_XSETREF(extra->seen, Py_NewRef(seen));
    return 0;
}

static PyObject *
entry_get_tags(entry_t *entry, void *Py_UNUSED(closure))
{
    if (entry->extra == NULL || entry->extra->tags == NULL) {
        return PyTuple_New(0);
    }
    return Py_NewRef(entry->extra->tags);
}

static PyObject *
entry_get_why(entry_t *entry, void *Py_UNUSED(closure))
{
    module_t *module = module_of(Py_TYPE(entry));
    if (entry->flags & WAS_EVICTED) {
        return Py_NewRef(module->evicted);
    }
    return Py_NewRef(entry->flags & WAS_EXPIRED ? module->expired : Py_None);
}

static PyObject *
entry_get_tick(entry_t *entry, void *Py_UNUSED(closure))
{
    return PyLong_FromLongLong(entry->flags & IS_DUE ? (deadline_ns_of(entry) >> 30) + 1 : 0);
}

static PyObject *
entry_get_scope(entry_t *entry, void *Py_UNUSED(closure))
{
    return Py_NewRef(entry->scope == NULL ? Py_None : (PyObject *)entry->scope);
}

static PyObject *
entry_deadline_ns(entry_t *entry, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromLongLong(deadline_ns_of(entry));
}

static PyMemberDef entry_members[] = {
    {"slot", T_OBJECT_EX, offsetof(entry_t, slot), READONLY, NULL},
    {"policy", T_OBJECT_EX, offsetof(entry_t, policy), READONLY, NULL},
    {"fresh_ns", T_LONGLONG, offsetof(entry_t, fresh_ns), READONLY, NULL},
    {"stored_ns", T_LONGLONG, offsetof(entry_t, stored_ns), READONLY, NULL},
    {"freq", T_UBYTE, offsetof(entry_t, freq), 0, NULL},
    {"queue", T_UBYTE, offsetof(entry_t, queue), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef entry_getset[] = {
    {"key", (getter)entry_get_key, NULL, NULL, NULL},
    {"value", (getter)entry_get_value, (setter)entry_set_value, NULL, NULL},
    {"fast_ns", (getter)entry_get_fast_ns, (setter)entry_set_fast_ns, NULL, NULL},
    {"expire_ns", (getter)entry_get_number, (setter)entry_set_number, NULL, (void *)EXPIRE_NS},
    {"read_ns", (getter)entry_get_number, (setter)entry_set_number, NULL, (void *)READ_NS},
    {"retry_ns", (getter)entry_get_number, (setter)entry_set_number, NULL, (void *)RETRY_NS},
    {"load_ns", (getter)entry_get_number, NULL, NULL, (void *)LOAD_NS},
    {"weight", (getter)entry_get_number, NULL, NULL, (void *)WEIGHT},
    {"epoch", (getter)entry_get_number, (setter)entry_set_number, NULL, (void *)EPOCH},
    {"failures", (getter)entry_get_number, (setter)entry_set_number, NULL, (void *)FAILURES},
    {"is_absent", (getter)entry_get_is_absent, (setter)entry_set_is_absent, NULL, NULL},
    {"seen", (getter)entry_get_seen, (setter)entry_set_seen, NULL, NULL},
    {"tags", (getter)entry_get_tags, NULL, NULL, NULL},
    {"tick", (getter)entry_get_tick, NULL, NULL, NULL},
    {"why", (getter)entry_get_why, NULL, NULL, NULL},
    {"shelf", (getter)entry_get_scope, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef entry_methods[] = {
    {"deadline_ns", (PyCFunction)entry_deadline_ns, METH_NOARGS,
     "Return when the entry expires if nobody reads it until then."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot entry_slots[] = {
    {Py_tp_doc, "A value with its key, its times and its places; see the pure table's `Entry`."},
    {Py_tp_new, entry_new},
    {Py_tp_dealloc, entry_dealloc},
    {Py_tp_members, entry_members},
    {Py_tp_getset, entry_getset},
    {Py_tp_methods, entry_methods},
    {0, NULL},
};

static PyType_Spec entry_spec = {
    .name = "credenza.memory._table.Entry",
    .basicsize = sizeof(entry_t),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = entry_slots,
};

/* Queues ----------------------------------------------------------------------------------------------------------- */

static void
queue_append(queue_t *queue, entry_t *entry)
{
    entry->before = queue->last;
    entry->after = NULL;
    if (queue->last != NULL) {
        queue->last->after = entry;
    }
    else {
        queue->first = entry;
    }
    queue->last = entry;
}

static void
queue_prepend(queue_t *queue, entry_t *entry)
{
    entry->before = NULL;
    entry->after = queue->first;
    if (queue->first != NULL) {
        queue->first->before = entry;
    }
    else {
        queue->last = entry;
    }
    queue->first = entry;
}

static void
queue_remove(queue_t *queue, entry_t *entry)
{
    if (entry->before != NULL) {
        entry->before->after = entry->after;
    }
    else {
        queue->first = entry->after;
    }
    if (entry->after != NULL) {
        entry->after->before = entry->before;
    }
    else {
        queue->last = entry->before;
    }
    entry->before = entry->after = NULL;
}

/* Tags ------------------------------------------------------------------------------------------------------------- */

static void
tag_dealloc(tag_t *tag)
{
    PyTypeObject *type = Py_TYPE(tag);
    PyObject_GC_UnTrack(tag);
    Py_XDECREF(tag->name);
    PyObject_GC_Del(tag);
    Py_DECREF(type);
}

static int
tag_traverse(tag_t *tag, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(tag));
    Py_VISIT(tag->name);
    return 0;
}

static int
tag_clear(tag_t *tag)
{
    Py_CLEAR(tag->name);
    return 0;
}

static PyMemberDef tag_members[] = {
    {"name", T_OBJECT_EX, offsetof(tag_t, name), READONLY, NULL},
    {"count", T_PYSSIZET, offsetof(tag_t, count), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyObject *
tag_get_is_dead(tag_t *tag, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(tag->is_dead);
}

static PyGetSetDef tag_getset[] = {
    {"is_dead", (getter)tag_get_is_dead, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot tag_slots[] = {
    {Py_tp_doc, "One generation of a tag."},
    {Py_tp_dealloc, tag_dealloc},
    {Py_tp_traverse, tag_traverse},
    {Py_tp_clear, tag_clear},
    {Py_tp_members, tag_members},
    {Py_tp_getset, tag_getset},
    {0, NULL},
};

static PyType_Spec tag_spec = {
    .name = "credenza.memory._table.Tag",
    .basicsize = sizeof(tag_t),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = tag_slots,
};

/* Counters --------------------------------------------------------------------------------------------------------- */

static PyObject *
tally_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, ":Tally", names)) {
        return NULL;
    }
    return type->tp_alloc(type, 0);
}

static void
tally_dealloc(tally_t *tally)
{
    PyTypeObject *type = Py_TYPE(tally);
    type->tp_free(tally);
    Py_DECREF(type);
}

/* Count what another has counted, too. */
static PyObject *
tally_add(tally_t *tally, PyObject *object)
{
    if (Py_TYPE(object) != Py_TYPE(tally)) {
        PyErr_SetString(PyExc_TypeError, "add takes a tally");
        return NULL;
    }
    const tally_t *other = (tally_t *)object;
    tally->hits += other->hits;
    tally->stale_hits += other->stale_hits;
    tally->misses += other->misses;
    tally->joins += other->joins;
    tally->shared_hits += other->shared_hits;
    tally->loads += other->loads;
    tally->load_ns += other->load_ns;
    tally->stores += other->stores;
    tally->evictions += other->evictions;
    tally->expirations += other->expirations;
    return Py_NewRef(Py_None);
}

static PyMethodDef tally_methods[] = {
    {"add", (PyCFunction)tally_add, METH_O, "Count what another has counted, too."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef tally_members[] = {
    {"hits", T_LONGLONG, offsetof(tally_t, hits), 0, NULL},
    {"stale_hits", T_LONGLONG, offsetof(tally_t, stale_hits), 0, NULL},
    {"misses", T_LONGLONG, offsetof(tally_t, misses), 0, NULL},
    {"joins", T_LONGLONG, offsetof(tally_t, joins), 0, NULL},
    {"shared_hits", T_LONGLONG, offsetof(tally_t, shared_hits), 0, NULL},
    {"loads", T_LONGLONG, offsetof(tally_t, loads), 0, NULL},
    {"load_ns", T_LONGLONG, offsetof(tally_t, load_ns), 0, NULL},
    {"stores", T_LONGLONG, offsetof(tally_t, stores), 0, NULL},
    {"evictions", T_LONGLONG, offsetof(tally_t, evictions), 0, NULL},
    {"expirations", T_LONGLONG, offsetof(tally_t, expirations), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot tally_slots[] = {
    {Py_tp_doc, "The counters of one cached function, or of the calls by hand."},
    {Py_tp_new, tally_new},
    {Py_tp_dealloc, tally_dealloc},
    {Py_tp_members, tally_members},
    {Py_tp_methods, tally_methods},
    {0, NULL},
};

static PyType_Spec tally_spec = {
    .name = "credenza.memory._table.Tally",
    .basicsize = sizeof(tally_t),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = tally_slots,
};

#endif
