/* `get`, `get_or_load` and `set` by hand, from memory. */

#ifndef CREDENZA_STORE_H
#define CREDENZA_STORE_H

/* The base of a face: `get`, `get_or_load` and `set`, which ask `_get_beyond_memory` and its like for the rest. */
typedef struct {
    PyObject_HEAD
    state_t *state; /* NULL: a value is set in Python */
    PyObject *policy;
    PyObject *events;
    PyObject *fences; /* the dictionaries of the fences */
    table_t *table;  /* NULL until `_serve` */
    tally_t *tally;
    PyObject *former; /* what it served before: a call under way in another thread, or in a key's __eq__, goes on with it */
    int64_t ttl_ns;
    double jitter;
    PyObject *last_ttl; /* the ttl of the last call that gave one, and how long that is */
    int64_t last_ttl_ns;
} store_t;

static int
store_traverse(store_t *store, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(store));
    Py_VISIT(store->state);
    Py_VISIT(store->policy);
    Py_VISIT(store->last_ttl);
    Py_VISIT(store->events);
    Py_VISIT(store->fences);
    Py_VISIT(store->table);
    Py_VISIT(store->former);
    return 0;
}

static int
store_clear(store_t *store)
{
    Py_CLEAR(store->state);
    Py_CLEAR(store->policy);
    Py_CLEAR(store->last_ttl);
    Py_CLEAR(store->events);
    Py_CLEAR(store->fences);
    Py_CLEAR(store->table);
    Py_CLEAR(store->tally);
    Py_CLEAR(store->former);
    return 0;
}

static void
store_dealloc(store_t *store)
{
    PyTypeObject *type = Py_TYPE(store);
    PyObject_GC_UnTrack(store);
    store_clear(store);
    type->tp_free(store);
    Py_DECREF(type);
}

/* _serve(table, tally, state, policy, ttl_ns, jitter): from now on; without a state, values are set in Python. */
static PyObject *
store_serve(store_t *store, PyObject *args)
{
    module_t *module = module_of(Py_TYPE(store));
    PyObject *table, *tally, *state, *policy;
    long long ttl_ns;
    double jitter;
    if (!PyArg_ParseTuple(args, "O!O!OOLd:_serve", module->table, &table, module->tally, &tally, &state, &policy, &ttl_ns,
                          &jitter)) {
        return NULL;
    }
    if (store->table != NULL) {
        PyObject *parts[] = {(PyObject *)store->table, (PyObject *)store->tally, store->policy, store->events,
                             store->fences, (PyObject *)store->state, store->former};
        for (size_t index = 0; index < sizeof(parts) / sizeof(*parts); index++) {
            parts[index] = parts[index] == NULL ? Py_None : parts[index];
        }
        PyObject *former = tuple_of(parts, sizeof(parts) / sizeof(*parts));
        if (former == NULL) {
            return NULL;
        }
        Py_XSETREF(store->former, former);
    }
    Py_XSETREF(store->table, (table_t *)Py_NewRef(table));
    Py_XSETREF(store->tally, (tally_t *)Py_NewRef(tally));
    Py_XSETREF(store->policy, Py_NewRef(policy));
    if (state != Py_None) {
        if (!PyObject_TypeCheck(state, module->state_fields)) {
            PyErr_SetString(PyExc_TypeError, "_serve takes a state");
            return NULL;
        }
        Py_XSETREF(store->events, PyObject_GetAttr(state, module->events));
        Py_XSETREF(store->fences, fences_of(module, (state_t *)state));
        if (store->events == NULL || store->fences == NULL) {
            return NULL;
        }
    }
    Py_XSETREF(store->state, state == Py_None ? NULL : (state_t *)Py_NewRef(state));
    store->ttl_ns = ttl_ns;
    store->jitter = jitter;
    return Py_NewRef(Py_None);
}

static PyObject *
store_ask(store_t *store, const char *name, PyObject *const *args, Py_ssize_t nargs, PyObject *keywords)
{
    PyObject *method = PyObject_GetAttrString((PyObject *)store, name);
    if (method == NULL) {
        return NULL;
    }
    PyObject *result = PyObject_Vectorcall(method, args, (size_t)nargs, keywords);
    Py_DECREF(method);
    return result;
}

static PyObject *
store_get(store_t *store, PyObject *const *args, Py_ssize_t nargs, PyObject *keywords)
{
    if (store->table != NULL && keywords == NULL && (nargs == 1 || nargs == 2)) {
        PyObject *value = table_look_up(store->table, store->table->entries, args[0], store->tally);
        if (value != NULL) {
            return value;
        }
        if (PyErr_Occurred()) {
            if (!PyErr_ExceptionMatches(PyExc_TypeError)) {
                return NULL;
            }
            PyErr_Clear(); /* what is not hashable has a message of its own */
        }
    }
    return store_ask(store, "_get_beyond_memory", args, nargs, keywords);
}

/* Tell whether an option says that a hit takes more than memory. */
static int
shapes_hits(PyObject *keywords)
{
    for (Py_ssize_t index = 0; keywords != NULL && index < PyTuple_GET_SIZE(keywords); index++) {
        PyObject *name = PyTuple_GET_ITEM(keywords, index);
        if (PyUnicode_CompareWithASCIIString(name, "copy") == 0 ||
            PyUnicode_CompareWithASCIIString(name, "early_refresh") == 0) {
            return 1;
        }
    }
    return 0;
}

static PyObject *
store_get_or_load(store_t *store, PyObject *const *args, Py_ssize_t nargs, PyObject *keywords)
{
    if (store->table != NULL && nargs == 2 && !shapes_hits(keywords)) {
        PyObject *value = table_look_up(store->table, store->table->entries, args[0], store->tally);
        if (value != NULL) {
            return value;
        }
        if (PyErr_Occurred()) {
            if (!PyErr_ExceptionMatches(PyExc_TypeError)) {
                return NULL;
            }
            PyErr_Clear(); /* as above */
        }
    }
    return store_ask(store, "_get_or_load_beyond_memory", args, nargs, keywords);
}

/* Tell whether nothing but memory is concerned: 1, 0, or -1 for an error; for good while the lock is held. */
static int
store_is_free(store_t *store, module_t *module, PyObject *key)
{
    int answer = has_fences(store->fences) ? 1 : has_listeners(module, store->events);
    answer = answer ? answer : store->state->is_closed;
    if (answer) {
        return answer < 0 ? -1 : 0;
    }
    PyObject *flights = held(store->state->flights);
    Py_ssize_t flying = flights == NULL ? -1 : PyObject_Size(flights);
    answer = flying > 0 ? PySequence_Contains(flights, key) : (int)flying;
    Py_XDECREF(flights);
    return answer < 0 ? -1 : !answer;
}

/* Put a value in unless more is concerned: 1, 0, or -1 for an error. The lock is held. */
static int
store_put(store_t *store, module_t *module, PyObject *key, entry_t *entry)
{
    int is_free = store_is_free(store, module, key);
    if (is_free <= 0) {
        return is_free;
    }
    if (put_entry(module, store->table, entry, NULL, entry->stored_ns) < 0) {
        return -1;
    }
    store->tally->stores++;
    return 1;
}

/* Return the entry of a value; the lock is not held, as a clock is the user's. */
static entry_t *
store_entry(store_t *store, module_t *module, PyObject *key, PyObject *value, int64_t ttl_ns)
{
    int64_t now_ns;
    PyObject *random = held(store->state->random);
    int is_ready = random != NULL && read_now(store->table, &now_ns) == 0 &&
                   shorten(random, store->jitter, ttl_ns, &ttl_ns) == 0;
    Py_XDECREF(random);
    if (!is_ready) {
        return NULL;
    }
    scope_t *scope;
    PyObject *slot = split_key(module, key, &scope);
    return entry_make(module, slot, scope, value, store->policy, now_ns, end_ns_of(now_ns, ttl_ns), 0, 1);
}

static int
store_set_quickly(store_t *store, PyObject *key, PyObject *value, int64_t ttl_ns)
{
    module_t *module = store->table->module;
    int is_free = hash_of(key) == -1 ? -1 : store_is_free(store, module, key); /* else Python would draw a second ttl */
    if (is_free <= 0) {
        return is_free;
    }
    entry_t *entry = store_entry(store, module, key, value, ttl_ns);
    PyObject *lock = entry == NULL ? NULL : lock_state(module, store->state);
    if (lock == NULL) {
        Py_XDECREF(entry);
        return -1;
    }
    int result = store_put(store, module, key, entry);
    queue_t gone = {NULL, NULL};
    if (result) {
        gone = take_gone(store->table);
    }
    unlock_state(module, lock);
    Py_DECREF(entry);
    bury(module->missing, store->tally, gone);
    return result;
}

/* Return how long a value is to be kept, 0 if that is a question for Python; `keywords` may name a ttl and nothing else.

   People write a ttl down once, and the call gives the same object each time; so the last one is remembered. */
static int64_t
store_ttl_ns(store_t *store, PyObject *const *args, PyObject *keywords)
{
    if (keywords == NULL) {
        return store->ttl_ns;
    }
    if (PyTuple_GET_SIZE(keywords) != 1 || PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(keywords, 0), "ttl") != 0) {
        return 0;
    }
    PyObject *ttl = args[2];
    if (ttl == store->last_ttl) {
        return store->last_ttl_ns;
    }
    int64_t ttl_ns = 0;
    if (PyLong_CheckExact(ttl) || PyFloat_CheckExact(ttl) || PyUnicode_CheckExact(ttl)) {
        PyObject *number = PyObject_CallMethod((PyObject *)store, "_nanoseconds", "O", ttl);
        if (number == NULL || as_int64(number, &ttl_ns) < 0 || ttl_ns <= 0) {
            ttl_ns = 0;
            if (PyErr_ExceptionMatches(module_of(Py_TYPE(store))->configuration_error)) {
                PyErr_Clear(); /* it comes again from Python, after what is wrong with the key */
            }
        }
        Py_XDECREF(number);
    }
    if (ttl_ns) {
        Py_XSETREF(store->last_ttl, Py_NewRef(ttl));
        store->last_ttl_ns = ttl_ns;
    }
    return ttl_ns;
}

static PyObject *
store_set(store_t *store, PyObject *const *args, Py_ssize_t nargs, PyObject *keywords)
{
    int64_t ttl_ns = store->state != NULL && nargs == 2 ? store_ttl_ns(store, args, keywords) : 0;
    if (!ttl_ns && PyErr_Occurred()) {
        return NULL;
    }
    if (ttl_ns) {
        int result = store_set_quickly(store, args[0], args[1], ttl_ns);
        if (result > 0) {
            return Py_NewRef(Py_None);
        }
        if (result < 0) {
            if (!PyErr_ExceptionMatches(PyExc_TypeError)) {
                return NULL;
            }
            PyErr_Clear(); /* as above */
        }
    }
    return store_ask(store, "_set_beyond_memory", args, nargs, keywords);
}

static PyMethodDef store_methods[] = {
    {"get", (PyCFunction)(void (*)(void))store_get, METH_FASTCALL | METH_KEYWORDS,
     "get($self, key, default=None, *, type=...)\n--\n\n"
     "Return the fresh value of `key`, or `default`. Never loads; blocks only for a shared tier."},
    {"get_or_load", (PyCFunction)(void (*)(void))store_get_or_load, METH_FASTCALL | METH_KEYWORDS,
     "get_or_load($self, key, loader, *, timeout=None, tags=(), type=..., **options)\n--\n\n"
     "Return the value of `key`, loading it if it is not at hand."},
    {"set", (PyCFunction)(void (*)(void))store_set, METH_FASTCALL | METH_KEYWORDS,
     "set($self, key, value, *, ttl=..., tags=())\n--\n\n"
     "Store `value`. Loads of `key` that began before are not stored any more."},
    {"_serve", (PyCFunction)store_serve, METH_VARARGS, "Begin to serve."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot store_slots[] = {
    {Py_tp_doc, "`get` and `set` of a cache, from memory."},
    {Py_tp_dealloc, store_dealloc},
    {Py_tp_traverse, store_traverse},
    {Py_tp_clear, store_clear},
    {Py_tp_methods, store_methods},
    {0, NULL},
};

static PyType_Spec store_spec = {
    .name = "credenza.memory._table.Store",
    .basicsize = sizeof(store_t),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = store_slots,
};

#endif
