/* The shortest ways through a cache: the miss of a function (`quick.Shortcut`), and what `_store.h` shares with it.

   They do what the flows in Python do, with what cannot happen left out, and give way to those as soon as something can:
   a shared tier, a fence, a listener, a load of the same key. All else of a cache stays in Python and is asked for by name. */

#ifndef CREDENZA_QUICK_H
#define CREDENZA_QUICK_H

#define DRAWS 257

static PyObject *
tuple_of(PyObject *const *items, Py_ssize_t count)
{
    PyObject *tuple = PyTuple_New(count);
    for (Py_ssize_t index = 0; tuple != NULL && index < count; index++) {
        PyTuple_SET_ITEM(tuple, index, Py_NewRef(items[index]));
    }
    return tuple;
}

/* Return the exact time of a table's clock; -1 for an error. */
static int
read_now(table_t *table, int64_t *now_ns)
{
    if (table->clock_mode != CLOCK_IS_CALLABLE) {
        *now_ns = exact_now_ns(table->clock_mode);
        return 0;
    }
    PyObject *clock = Py_NewRef(table->clock);
    PyObject *now = PyObject_CallNoArgs(clock);
    Py_DECREF(clock);
    int result = now == NULL ? -1 : as_int64(now, now_ns);
    Py_XDECREF(now);
    return result;
}

/* Take the lock of the cache and return it; NULL for an error. */
static PyObject *
lock_state(module_t *module, PyObject *state)
{
    PyObject *lock = PyObject_GetAttr(state, module->lock);
    if (lock != NULL && Py_TYPE(lock) == module->lock_type) {
        lock_acquire((lock_t *)lock);
        return lock;
    }
    PyObject *answer = lock == NULL ? NULL : PyObject_CallMethodNoArgs(lock, module->acquire);
    if (answer == NULL) {
        Py_XDECREF(lock);
        return NULL;
    }
    Py_DECREF(answer);
    return lock;
}

/* Release it, whatever error is on its way. */
static void
unlock_state(module_t *module, PyObject *lock)
{
    if (Py_TYPE(lock) == module->lock_type) {
        (void)lock_release((lock_t *)lock); /* it is held */
        Py_DECREF(lock);
        return;
    }
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *answer = PyObject_CallMethodNoArgs(lock, module->release);
    if (answer == NULL) {
        PyErr_WriteUnraisable(lock);
    }
    Py_XDECREF(answer);
    Py_DECREF(lock);
    PyErr_Restore(type, value, traceback);
}

/* Tell whether an attribute is true; -1 for an error. */
static int
is_true(PyObject *object, PyObject *name)
{
    PyObject *value = PyObject_GetAttr(object, name);
    if (value == NULL) {
        return -1;
    }
    int answer = PyObject_IsTrue(value);
    Py_DECREF(value);
    return answer;
}

/* Tell whether a tuple is not empty; -1 for an error. */
static int
has_listeners(module_t *module, PyObject *events)
{
    PyObject *listeners = PyObject_GetAttr(events, module->listeners);
    if (listeners == NULL) {
        return -1;
    }
    int answer = PyTuple_CheckExact(listeners) ? PyTuple_GET_SIZE(listeners) > 0 : PyObject_IsTrue(listeners);
    Py_DECREF(listeners);
    return answer;
}

/* Tell whether a write is under way: one of two dictionaries, those of `Fences`, holds something. */
static inline int
has_fences(PyObject *fences)
{
    return PyDict_GET_SIZE(PyTuple_GET_ITEM(fences, 0)) > 0 || PyDict_GET_SIZE(PyTuple_GET_ITEM(fences, 1)) > 0;
}

/* Return the tuple of those dictionaries, a new reference. */
static PyObject *
fences_of(module_t *module, PyObject *state)
{
    PyObject *fences = PyObject_GetAttr(state, module->fences);
    PyObject *registers = fences == NULL ? NULL : PyObject_GetAttr(fences, module->registers);
    Py_XDECREF(fences);
    if (registers != NULL && !(PyTuple_CheckExact(registers) && PyTuple_GET_SIZE(registers) == 2 &&
                               PyDict_CheckExact(PyTuple_GET_ITEM(registers, 0)) &&
                               PyDict_CheckExact(PyTuple_GET_ITEM(registers, 1)))) {
        PyErr_SetString(PyExc_TypeError, "the registers of the fences must be two dictionaries");
        Py_CLEAR(registers);
    }
    return registers;
}

/* Count what left the table and let go of the values; the lock is not held, as finalizers are the user's code. */
static void
bury(PyObject *missing, tally_t *tally, queue_t gone)
{
    entry_t *entry;
    while ((entry = queue_take_first(&gone)) != NULL) {
        tally->evictions += (entry->flags & WAS_EVICTED) != 0;
        tally->expirations += (entry->flags & WAS_EXPIRED) != 0;
        if (Py_REFCNT(entry) > 1) {
            Py_SETREF(entry->value, Py_NewRef(missing));
        }
        Py_DECREF(entry);
    }
}

/* Put an entry in, by the method of a subclass if there is one. */
static int
put_entry(module_t *module, table_t *table, entry_t *entry, int64_t now_ns)
{
    if (Py_TYPE(table) == module->table) {
        int result;
        Py_BEGIN_CRITICAL_SECTION(table);
        result = table_put(table, entry, NULL, now_ns);
        Py_END_CRITICAL_SECTION();
        return result;
    }
    PyObject *answer = PyObject_CallMethod((PyObject *)table, "put", "O()L", entry, (long long)now_ns);
    Py_XDECREF(answer);
    return answer == NULL ? -1 : 0;
}

static queue_t
take_gone(table_t *table)
{
    queue_t gone = table->gone;
    table->gone = (queue_t){NULL, NULL};
    return gone;
}

/* Shorten a ttl by a random share, as `make_entry` does; -1 for an error. */
static int
shorten(PyObject *random, double jitter, int64_t ttl_ns, int64_t *shortened_ns)
{
    *shortened_ns = ttl_ns;
    if (jitter > 0 && ttl_ns < FOREVER_NS / 2) {
        PyObject *drawn = PyObject_CallNoArgs(random);
        double share = drawn == NULL ? -1 : PyFloat_AsDouble(drawn);
        Py_XDECREF(drawn);
        if (share == -1 && PyErr_Occurred()) {
            return -1;
        }
        *shortened_ns -= (int64_t)((double)ttl_ns * jitter * share);
    }
    return 0;
}

/* Return when a value of this age limit ends; a clock may be near the end of all numbers. */
static inline int64_t
end_ns_of(int64_t now_ns, int64_t ttl_ns)
{
    return now_ns > INT64_MAX - ttl_ns ? INT64_MAX : now_ns + ttl_ns;
}

/* The miss of a function ------------------------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    PyObject *state;
    table_t *table;
    scope_t *scope;
    tally_t *tally;
    PyObject *policy;
    PyObject *flight_type;
    PyObject *loaded_type;
    PyObject *loading; /* the context variable with the flight that a loader leads */
    PyObject *landed;  /* the outcome */
    PyObject *events;
    PyObject *fences;  /* the dictionaries of the fences */
    PyObject *random;  /* what the ttls were drawn with */
    int64_t ttl_ns;
    double jitter;
    int drawn;
    int64_t ttls[DRAWS];
} shortcut_t;

static int
shortcut_draw(shortcut_t *shortcut, PyObject *random)
{
    for (int index = 0; index < DRAWS; index++) {
        if (shorten(random, shortcut->jitter, shortcut->ttl_ns, &shortcut->ttls[index]) < 0) {
            return -1;
        }
    }
    shortcut->drawn = 0;
    Py_XSETREF(shortcut->random, Py_NewRef(random));
    return 0;
}

static PyObject *
shortcut_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"state",   "table",       "scope",   "tally",  "policy", "ttl_ns", "jitter",
                            "flight_type", "loaded_type", "loading", "landed", NULL};
    PyObject *state, *table, *scope, *tally, *policy, *flight_type, *loaded_type, *loading, *landed;
    long long ttl_ns;
    double jitter;
    module_t *module = module_of(type);
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO!O!O!OLdOOO!O:Shortcut", names, &state, module->table, &table,
                                     module->scope, &scope, module->tally, &tally, &policy, &ttl_ns, &jitter,
                                     &flight_type, &loaded_type, &PyContextVar_Type, &loading, &landed)) {
        return NULL;
    }
    shortcut_t *shortcut = (shortcut_t *)type->tp_alloc(type, 0);
    PyObject *random = shortcut == NULL ? NULL : PyObject_GetAttr(state, module->random);
    if (random == NULL) {
        Py_XDECREF(shortcut);
        return NULL;
    }
    shortcut->state = Py_NewRef(state);
    shortcut->table = (table_t *)Py_NewRef(table);
    shortcut->scope = (scope_t *)Py_NewRef(scope);
    shortcut->tally = (tally_t *)Py_NewRef(tally);
    shortcut->policy = Py_NewRef(policy);
    shortcut->flight_type = Py_NewRef(flight_type);
    shortcut->loaded_type = Py_NewRef(loaded_type);
    shortcut->loading = Py_NewRef(loading);
    shortcut->landed = Py_NewRef(landed);
    shortcut->events = PyObject_GetAttr(state, module->events);
    shortcut->fences = fences_of(module, state);
    shortcut->ttl_ns = ttl_ns;
    shortcut->jitter = jitter;
    int is_made = shortcut->events != NULL && shortcut->fences != NULL && shortcut_draw(shortcut, random) == 0;
    Py_DECREF(random);
    if (!is_made) {
        Py_CLEAR(shortcut);
    }
    return (PyObject *)shortcut;
}

static int
shortcut_traverse(shortcut_t *shortcut, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(shortcut));
    Py_VISIT(shortcut->state);
    Py_VISIT(shortcut->table);
    Py_VISIT(shortcut->tally);
    Py_VISIT(shortcut->policy);
    Py_VISIT(shortcut->flight_type);
    Py_VISIT(shortcut->loaded_type);
    Py_VISIT(shortcut->loading);
    Py_VISIT(shortcut->random);
    Py_VISIT(shortcut->events);
    Py_VISIT(shortcut->fences);
    return 0;
}

static void
shortcut_dealloc(shortcut_t *shortcut)
{
    PyTypeObject *type = Py_TYPE(shortcut);
    PyObject_GC_UnTrack(shortcut);
    Py_XDECREF(shortcut->state);
    Py_XDECREF((PyObject *)shortcut->table);
    Py_XDECREF((PyObject *)shortcut->scope);
    Py_XDECREF((PyObject *)shortcut->tally);
    Py_XDECREF(shortcut->policy);
    Py_XDECREF(shortcut->flight_type);
    Py_XDECREF(shortcut->loaded_type);
    Py_XDECREF(shortcut->loading);
    Py_XDECREF(shortcut->landed);
    Py_XDECREF(shortcut->random);
    Py_XDECREF(shortcut->events);
    Py_XDECREF(shortcut->fences);
    type->tp_free(shortcut);
    Py_DECREF(type);
}

/* Register a flight unless somebody is concerned; the lock is held. Return it, or NULL, perhaps with an error. */
static PyObject *
shortcut_register(shortcut_t *shortcut, module_t *module, PyObject *slot, PyObject *key, int64_t now_ns)
{
    Py_hash_t hash = hash_of(slot);
    if (hash == -1) {
        return NULL;
    }
    entry_t *entry;
    Py_BEGIN_CRITICAL_SECTION(shortcut->table);
    entry = scope_find(shortcut->scope, slot, hash);
    Py_END_CRITICAL_SECTION();
    if (entry != NULL || PyErr_Occurred() || is_true(shortcut->state, module->is_closed)) {
        return NULL;
    }
    PyObject *flight = NULL;
    PyObject *flights = PyObject_GetAttr(shortcut->state, module->flights);
    PyObject *arrivals = flights == NULL ? NULL : PyObject_GetAttr(shortcut->state, module->arrivals);
    int64_t number = 0;
    if (arrivals != NULL && PySequence_Contains(flights, key) == 0 && as_int64(arrivals, &number) == 0) {
        PyObject *args[] = {key, PyLong_FromLongLong(number + 1), PyLong_FromLongLong(shortcut->table->epoch),
                            PyLong_FromLongLong(now_ns)};
        if (args[1] != NULL && args[2] != NULL && args[3] != NULL &&
            PyObject_SetAttr(shortcut->state, module->arrivals, args[1]) == 0) {
            flight = PyObject_Vectorcall(shortcut->flight_type, args, 4, NULL);
        }
        if (flight != NULL && PyObject_SetItem(flights, key, flight) < 0) {
            Py_CLEAR(flight);
        }
        Py_XDECREF(args[1]);
        Py_XDECREF(args[2]);
        Py_XDECREF(args[3]);
    }
    Py_XDECREF(flights);
    Py_XDECREF(arrivals);
    return flight;
}

/* Begin a flight; NULL if there is more to look at, or with an error. */
static PyObject *
shortcut_take_off(shortcut_t *shortcut, PyObject *slot, int64_t *now_ns)
{
    module_t *module = shortcut->table->module;
    PyObject *leader = NULL;
    if (PyContextVar_Get(shortcut->loading, NULL, &leader) < 0) {
        return NULL;
    }
    int is_nested = leader != NULL && leader != Py_None;
    Py_XDECREF(leader);
    if (is_nested || has_listeners(module, shortcut->events) || read_now(shortcut->table, now_ns) < 0) {
        return NULL;
    }
    PyObject *key = PyTuple_Pack(2, (PyObject *)shortcut->scope, slot);
    PyObject *lock = key == NULL ? NULL : lock_state(module, shortcut->state);
    PyObject *flight = NULL;
    if (lock != NULL) {
        flight = shortcut_register(shortcut, module, slot, key, *now_ns);
        unlock_state(module, lock);
    }
    Py_XDECREF(key);
    return flight;
}

static int
set_number(PyObject *object, PyObject *name, int64_t number)
{
    PyObject *value = PyLong_FromLongLong(number);
    int result = value == NULL ? -1 : PyObject_SetAttr(object, name, value);
    Py_XDECREF(value);
    return result;
}

static int
get_number(PyObject *object, PyObject *name, int64_t *number)
{
    PyObject *value = PyObject_GetAttr(object, name);
    int result = value == NULL ? -1 : as_int64(value, number);
    Py_XDECREF(value);
    return result;
}

/* End a flight and store its value; the lock is held. 1: done; 0: there is more to look at; -1: an error. */
static int
shortcut_publish(shortcut_t *shortcut, module_t *module, PyObject *flight, PyObject *value, entry_t *entry, int64_t now_ns,
                 int64_t load_ns)
{
    PyObject *flights = PyObject_GetAttr(shortcut->state, module->flights);
    PyObject *key = flights == NULL ? NULL : PyObject_GetAttr(flight, module->key);
    PyObject *current = key == NULL ? NULL : PyObject_GetItem(flights, key);
    int64_t epoch = 0;
    int result = -1;
    if (current == NULL && key != NULL && PyErr_ExceptionMatches(PyExc_KeyError)) {
        PyErr_Clear();
        result = 0;
    }
    else if (current != NULL && get_number(flight, module->epoch, &epoch) == 0) {
        result = current == flight && epoch == shortcut->table->epoch && !has_fences(shortcut->fences);
    }
    if (result > 0 && (put_entry(module, shortcut->table, entry, now_ns) < 0 || PyObject_DelItem(flights, key) < 0 ||
                       PyObject_SetAttr(flight, module->value, value) < 0 ||
                       set_number(flight, module->load_ns, load_ns) < 0 ||
                       PyObject_SetAttr(flight, module->outcome, shortcut->landed) < 0)) {
        result = -1;
    }
    Py_XDECREF(current);
    Py_XDECREF(key);
    Py_XDECREF(flights);
    return result;
}

/* Take a flight off the register, whatever became of it; errors are lost. */
static void
shortcut_strike(shortcut_t *shortcut, PyObject *flight)
{
    module_t *module = shortcut->table->module;
    PyObject *lock = lock_state(module, shortcut->state);
    PyObject *flights = lock == NULL ? NULL : PyObject_GetAttr(shortcut->state, module->flights);
    PyObject *key = flights == NULL ? NULL : PyObject_GetAttr(flight, module->key);
    PyObject *current = key == NULL ? NULL : PyObject_GetItem(flights, key);
    if (current == flight) {
        (void)PyObject_DelItem(flights, key);
    }
    PyErr_Clear();
    Py_XDECREF(current);
    Py_XDECREF(key);
    Py_XDECREF(flights);
    if (lock != NULL) {
        unlock_state(module, lock);
    }
}

/* Let those go on who wait for a flight. */
static int
ring(module_t *module, PyObject *flight)
{
    PyObject *signal = PyObject_GetAttr(flight, module->signal);
    if (signal == NULL || signal == Py_None) {
        Py_XDECREF(signal);
        return signal == NULL ? -1 : 0;
    }
    PyObject *answer = PyObject_CallMethodNoArgs(signal, module->set);
    Py_DECREF(signal);
    Py_XDECREF(answer);
    return answer == NULL ? -1 : 0;
}

static int
shortcut_touch_down(shortcut_t *shortcut, PyObject *flight, PyObject *value, int64_t began_ns)
{
    module_t *module = shortcut->table->module;
    if (PyType_IsSubtype(Py_TYPE(value), (PyTypeObject *)shortcut->loaded_type)) {
        return 0;
    }
    PyObject *random = PyObject_GetAttr(shortcut->state, module->random);
    int64_t now_ns;
    int is_ready = random != NULL && (random == shortcut->random || shortcut_draw(shortcut, random) == 0) &&
                   read_now(shortcut->table, &now_ns) == 0;
    Py_XDECREF(random);
    if (!is_ready) {
        return -1;
    }
    int64_t load_ns = now_ns - began_ns;
    int64_t ttl_ns = shortcut->ttls[shortcut->drawn];
    shortcut->drawn = (shortcut->drawn + 1) % DRAWS;
    PyObject *key = PyObject_GetAttr(flight, module->key);
    if (key == NULL) {
        return -1;
    }
    scope_t *scope;
    PyObject *slot = split_key(module, key, &scope);
    entry_t *entry = entry_make(module, slot, scope, value, shortcut->policy, now_ns, end_ns_of(now_ns, ttl_ns), load_ns, 1);
    Py_DECREF(key);
    PyObject *lock = entry == NULL ? NULL : lock_state(module, shortcut->state);
    if (lock == NULL) {
        Py_XDECREF(entry);
        return -1;
    }
    int result = shortcut_publish(shortcut, module, flight, value, entry, now_ns, load_ns);
    queue_t gone = {NULL, NULL};
    if (result > 0) {
        shortcut->tally->loads++;
        shortcut->tally->stores++;
        shortcut->tally->load_ns += load_ns;
        gone = take_gone(shortcut->table);
    }
    unlock_state(module, lock);
    Py_DECREF(entry);
    if (result > 0) {
        result = ring(module, flight) < 0 ? -1 : 1;
        bury(module->missing, shortcut->tally, gone);
    }
    return result;
}

static PyObject *
shortcut_take_off_method(shortcut_t *shortcut, PyObject *slot)
{
    int64_t now_ns;
    PyObject *flight = shortcut_take_off(shortcut, slot, &now_ns);
    return flight != NULL || PyErr_Occurred() ? flight : Py_NewRef(Py_None);
}

static PyObject *
shortcut_touch_down_method(shortcut_t *shortcut, PyObject *const *args, Py_ssize_t nargs)
{
    int64_t began_ns;
    if (takes("touch_down", nargs, 2) < 0 ||
        get_number(args[0], shortcut->table->module->began_ns, &began_ns) < 0) {
        return NULL;
    }
    int result = shortcut_touch_down(shortcut, args[0], args[1], began_ns);
    return result < 0 ? NULL : PyBool_FromLong(result);
}

/* Call a loader in a copy of the context, in which it leads the flight. */
static PyObject *
shortcut_run(shortcut_t *shortcut, PyObject *flight, PyObject *function, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *context = PyContext_CopyCurrent();
    if (context == NULL || PyContext_Enter(context) < 0) {
        Py_XDECREF(context);
        return NULL;
    }
    PyObject *result = NULL;
    PyObject *token = PyContextVar_Set(shortcut->loading, flight);
    if (token != NULL) {
        result = PyObject_Vectorcall(function, args, (size_t)nargs, NULL);
        Py_DECREF(token);
    }
    if (PyContext_Exit(context) < 0) {
        Py_CLEAR(result);
    }
    Py_DECREF(context);
    return result;
}

static PyMethodDef shortcut_methods[] = {
    {"take_off", (PyCFunction)shortcut_take_off_method, METH_O, "See the pure `Shortcut`."},
    {"touch_down", FAST(shortcut_touch_down_method), "See the pure `Shortcut`."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot shortcut_slots[] = {
    {Py_tp_doc, "The two steps of a quick miss of one function."},
    {Py_tp_new, shortcut_new},
    {Py_tp_dealloc, shortcut_dealloc},
    {Py_tp_traverse, shortcut_traverse},
    {Py_tp_methods, shortcut_methods},
    {0, NULL},
};

static PyType_Spec shortcut_spec = {
    .name = "credenza.memory._table.Shortcut",
    .basicsize = sizeof(shortcut_t),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = shortcut_slots,
};

#endif
