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
lock_state(module_t *module, state_t *state)
{
    PyObject *lock = held(state->lock);
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
fences_of(module_t *module, state_t *state)
{
    PyObject *fences = PyObject_GetAttr((PyObject *)state, module->fences);
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

/* Put an entry in with a tuple of tags, or NULL for none; by the method of a subclass if there is one. */
static int
put_entry(module_t *module, table_t *table, entry_t *entry, PyObject *tags, int64_t now_ns)
{
    if (Py_TYPE(table) == module->table) {
        int result;
        Py_BEGIN_CRITICAL_SECTION(table);
        result = table_put(table, entry, tags, now_ns);
        Py_END_CRITICAL_SECTION();
        return result;
    }
    PyObject *none = tags == NULL ? PyTuple_New(0) : Py_NewRef(tags);
    PyObject *answer =
        none == NULL ? NULL : PyObject_CallMethod((PyObject *)table, "put", "OOL", entry, none, (long long)now_ns);
    Py_XDECREF(none);
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

#define FRAMES_TO_RING 20
#if PY_VERSION_HEX >= 0x030C0000
#define FRAMES_LEFT py_recursion_remaining
#else
#define FRAMES_LEFT recursion_remaining
#endif

/* The miss of a function ------------------------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    state_t *state;
    table_t *table;
    tally_t *tally;
    PyObject *policy;
    PyTypeObject *flight_type;
    PyObject *loaded_type;
    PyObject *loading; /* the context variable with the flight that a loader leads */
    PyObject *landed, *abandoned; /* outcomes */
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
    static char *names[] = {"state",       "table",       "tally",   "policy", "ttl_ns",    "jitter",
                            "flight_type", "loaded_type", "loading", "landed", "abandoned", NULL};
    PyObject *state, *table, *tally, *policy, *flight_type, *loaded_type, *loading, *landed, *abandoned;
    long long ttl_ns;
    double jitter;
    module_t *module = module_of(type);
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!O!O!OLdOOO!OO:Shortcut", names, module->state_fields, &state,
                                     module->table, &table, module->tally, &tally, &policy, &ttl_ns, &jitter,
                                     &flight_type, &loaded_type, &PyContextVar_Type, &loading, &landed, &abandoned)) {
        return NULL;
    }
    if (!PyType_Check(flight_type) || !PyType_IsSubtype((PyTypeObject *)flight_type, module->flight_fields)) {
        PyErr_SetString(PyExc_TypeError, "flight_type must be a type of flights");
        return NULL;
    }
    shortcut_t *shortcut = (shortcut_t *)type->tp_alloc(type, 0);
    PyObject *random = shortcut == NULL ? NULL : held(((state_t *)state)->random);
    if (random == NULL) {
        Py_XDECREF(shortcut);
        return NULL;
    }
    shortcut->state = (state_t *)Py_NewRef(state);
    shortcut->table = (table_t *)Py_NewRef(table);
    shortcut->tally = (tally_t *)Py_NewRef(tally);
    shortcut->policy = Py_NewRef(policy);
    shortcut->flight_type = (PyTypeObject *)Py_NewRef(flight_type);
    shortcut->loaded_type = Py_NewRef(loaded_type);
    shortcut->loading = Py_NewRef(loading);
    shortcut->landed = Py_NewRef(landed);
    shortcut->abandoned = Py_NewRef(abandoned);
    shortcut->events = PyObject_GetAttr(state, module->events);
    shortcut->fences = fences_of(module, shortcut->state);
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
    Py_XDECREF((PyObject *)shortcut->state);
    Py_XDECREF((PyObject *)shortcut->table);
    Py_XDECREF((PyObject *)shortcut->tally);
    Py_XDECREF(shortcut->policy);
    Py_XDECREF((PyObject *)shortcut->flight_type);
    Py_XDECREF(shortcut->loaded_type);
    Py_XDECREF(shortcut->loading);
    Py_XDECREF(shortcut->landed);
    Py_XDECREF(shortcut->abandoned);
    Py_XDECREF(shortcut->random);
    Py_XDECREF(shortcut->events);
    Py_XDECREF(shortcut->fences);
    type->tp_free(shortcut);
    Py_DECREF(type);
}

/* Register a flight unless somebody is concerned; the lock is held. 1: done; 0: there is more to look at; -1: an error. */
static int
shortcut_register(shortcut_t *shortcut, PyObject *key, flight_t *flight)
{
    state_t *state = shortcut->state;
    entry_t *entry;
    Py_BEGIN_CRITICAL_SECTION(shortcut->table);
    entry = table_entry_of(shortcut->table, key);
    Py_END_CRITICAL_SECTION();
    if (entry != NULL || PyErr_Occurred() || state->is_closed) {
        return PyErr_Occurred() ? -1 : 0;
    }
    PyObject *flights = held(state->flights);
    int result = flights == NULL ? -1 : PySequence_Contains(flights, key);
    if (result == 0) {
        flight->number = ++state->arrivals;
        flight->epoch = shortcut->table->epoch;
        result = PyObject_SetItem(flights, key, (PyObject *)flight) < 0 ? -1 : 1;
    }
    else if (result > 0) {
        result = 0;
    }
    Py_XDECREF(flights);
    return result;
}

/* Begin a flight. 1: done; 0: there is more to look at; -1: an error. */
static int
shortcut_take_off(shortcut_t *shortcut, flight_t *flight)
{
    module_t *module = shortcut->table->module;
    PyObject *leader = NULL;
    if (PyContextVar_Get(shortcut->loading, NULL, &leader) < 0) {
        return -1;
    }
    int is_nested = leader != NULL && leader != Py_None;
    Py_XDECREF(leader);
    int listens = is_nested ? 0 : has_listeners(module, shortcut->events);
    if (is_nested || listens) {
        return listens < 0 ? -1 : 0;
    }
    int64_t now_ns;
    if (read_now(shortcut->table, &now_ns) < 0) {
        return -1;
    }
    flight->began_ns = now_ns;
    PyObject *key = held(flight->key);
    PyObject *lock = key == NULL ? NULL : lock_state(module, shortcut->state);
    int result = -1;
    if (lock != NULL) {
        result = shortcut_register(shortcut, key, flight);
        unlock_state(module, lock);
    }
    Py_XDECREF(key);
    return result;
}

/* Return the flight that is registered under a key, a new reference; NULL for none, perhaps with an error.

   The caller holds the register and the key: a key's __eq__ may fork, and the state of the child has another register. */
static PyObject *
current_flight(PyObject *flights, PyObject *key)
{
    PyObject *current = flights == NULL || key == NULL ? NULL : PyObject_GetItem(flights, key);
    if (current == NULL && PyErr_ExceptionMatches(PyExc_KeyError)) {
        PyErr_Clear();
    }
    return current;
}

/* Take a flight off the register, unless the key's __hash__ or __eq__ has invalidated it just now. */
static int
retire(PyObject *flights, PyObject *key)
{
    if (PyObject_DelItem(flights, key) == 0) {
        return 0;
    }
    if (!PyErr_ExceptionMatches(PyExc_KeyError)) {
        return -1;
    }
    PyErr_Clear(); /* the register's or the key's own: this tells */
    PyObject *current = PyObject_CallMethod(flights, "pop", "OO", key, Py_None);
    Py_XDECREF(current);
    return current == NULL ? -1 : 0;
}

/* End a flight and store its value; the lock is held. 1: done; 0: there is more to look at; -1: an error. */
static int
shortcut_publish(shortcut_t *shortcut, module_t *module, flight_t *flight, PyObject *value, entry_t *entry,
                 PyObject *tags, int64_t now_ns, int64_t load_ns)
{
    PyObject *flights = held(shortcut->state->flights);
    PyObject *key = flights == NULL ? NULL : held(flight->key);
    PyObject *current = current_flight(flights, key);
    int result = -1;
    if (current != NULL || !PyErr_Occurred()) {
        result = current == (PyObject *)flight && flight->epoch == shortcut->table->epoch && !has_fences(shortcut->fences);
    }
    if (result > 0 && (put_entry(module, shortcut->table, entry, tags, now_ns) < 0 || retire(flights, key) < 0)) {
        result = -1;
    }
    Py_XDECREF(current);
    Py_XDECREF(key);
    Py_XDECREF(flights);
    if (result > 0) {
        flight->load_ns = load_ns;
        Py_XSETREF(flight->value, Py_NewRef(value));
        Py_XSETREF(flight->outcome, Py_NewRef(shortcut->landed));
    }
    return result;
}

/* Let those go on who wait for a flight. That takes more stack than a load does, so there is some more for it. */
static int
ring(module_t *module, flight_t *flight)
{
    PyObject *signal = held(flight->signal);
    if (signal == NULL || signal == Py_None) {
        Py_XDECREF(signal);
        return signal == NULL ? -1 : 0;
    }
    PyThreadState *thread = PyThreadState_Get();
    thread->FRAMES_LEFT += FRAMES_TO_RING;
    PyObject *answer = PyObject_CallMethodNoArgs(signal, module->set);
    thread->FRAMES_LEFT -= FRAMES_TO_RING;
    Py_DECREF(signal);
    Py_XDECREF(answer);
    return answer == NULL ? -1 : 0;
}

/* Abandon a flight that could not be ended, for want of stack or memory or because of Ctrl+C; harmless if it was. */
static void
shortcut_strike(shortcut_t *shortcut, flight_t *flight)
{
    module_t *module = shortcut->table->module;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *lock = lock_state(module, shortcut->state);
    PyObject *flights = lock == NULL ? NULL : held(shortcut->state->flights);
    PyObject *key = flights == NULL ? NULL : held(flight->key);
    PyObject *current = lock == NULL ? NULL : current_flight(flights, key);
    if (current == (PyObject *)flight) {
        (void)PyObject_DelItem(flights, key);
    }
    Py_XDECREF(current);
    Py_XDECREF(key);
    Py_XDECREF(flights);
    if (flight->outcome != NULL && PyLong_CheckExact(flight->outcome) && PyLong_AsLong(flight->outcome) == PENDING) {
        Py_SETREF(flight->outcome, Py_NewRef(shortcut->abandoned));
    }
    if (lock != NULL) {
        unlock_state(module, lock);
    }
    PyErr_Clear();
    (void)ring(module, flight);
    restore_unless_interrupted(type, value, traceback);
}

/* End a flight and store its value with a tuple of tags. 1: done; 0: there is more to look at; -1: an error. */
static int
shortcut_touch_down(shortcut_t *shortcut, flight_t *flight, PyObject *value, PyObject *tags)
{
    module_t *module = shortcut->table->module;
    if (PyType_IsSubtype(Py_TYPE(value), (PyTypeObject *)shortcut->loaded_type)) {
        return 0;
    }
    if (PyTuple_CheckExact(tags) && PyTuple_GET_SIZE(tags) == 0) {
        tags = NULL;
    }
    PyObject *random = held(shortcut->state->random);
    int64_t now_ns;
    int is_ready = random != NULL && (random == shortcut->random || shortcut_draw(shortcut, random) == 0) &&
                   read_now(shortcut->table, &now_ns) == 0;
    Py_XDECREF(random);
    if (!is_ready) {
        return -1;
    }
    int64_t load_ns = now_ns - flight->began_ns;
    int64_t ttl_ns = shortcut->ttls[shortcut->drawn];
    shortcut->drawn = (shortcut->drawn + 1) % DRAWS;
    PyObject *key = held(flight->key);
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
    int result = shortcut_publish(shortcut, module, flight, value, entry, tags, now_ns, load_ns);
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
shortcut_flight_to_method(shortcut_t *shortcut, PyObject *key)
{
    return (PyObject *)flight_make(shortcut->flight_type, key);
}

/* Tell whether an argument is a flight, else raise TypeError. */
static int
is_flight(const shortcut_t *shortcut, PyObject *flight)
{
    if (PyType_IsSubtype(Py_TYPE(flight), shortcut->flight_type)) {
        return 1;
    }
    PyErr_Format(PyExc_TypeError, "a flight is needed, got %.100s", Py_TYPE(flight)->tp_name);
    return 0;
}

static PyObject *
shortcut_take_off_method(shortcut_t *shortcut, PyObject *flight)
{
    int result = is_flight(shortcut, flight) ? shortcut_take_off(shortcut, (flight_t *)flight) : -1;
    return result < 0 ? NULL : PyBool_FromLong(result);
}

static PyObject *
shortcut_touch_down_method(shortcut_t *shortcut, PyObject *const *args, Py_ssize_t nargs)
{
    if (takes("touch_down", nargs, 3) < 0) {
        return NULL;
    }
    if (!is_flight(shortcut, args[0])) {
        return NULL;
    }
    int result = shortcut_touch_down(shortcut, (flight_t *)args[0], args[1], args[2]);
    return result < 0 ? NULL : PyBool_FromLong(result);
}

/* Call a loader in a copy of the context, in which it leads the flight. */
static PyObject *
shortcut_run(shortcut_t *shortcut, flight_t *flight, PyObject *function, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *context = PyContext_CopyCurrent();
    if (context == NULL || PyContext_Enter(context) < 0) {
        Py_XDECREF(context);
        return NULL;
    }
    PyObject *result = NULL;
    PyObject *token = PyContextVar_Set(shortcut->loading, (PyObject *)flight);
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

static PyObject *
shortcut_strike_method(shortcut_t *shortcut, PyObject *flight)
{
    if (!is_flight(shortcut, flight)) {
        return NULL;
    }
    shortcut_strike(shortcut, (flight_t *)flight);
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

static PyMethodDef shortcut_methods[] = {
    {"flight_to", (PyCFunction)shortcut_flight_to_method, METH_O, "See the pure `Shortcut`."},
    {"take_off", (PyCFunction)shortcut_take_off_method, METH_O, "See the pure `Shortcut`."},
    {"touch_down", FAST(shortcut_touch_down_method), "See the pure `Shortcut`."},
    {"strike", (PyCFunction)shortcut_strike_method, METH_O, "See the pure `Shortcut`."},
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
