/* What `@cached` returns. */

#ifndef CREDENZA_CALLS_H
#define CREDENZA_CALLS_H

#include "_hit.h"

/* Return the place of a parameter that may be passed by name, -1 if there is none. */
static Py_ssize_t
call_parameter(const call_t *call, PyObject *name)
{
    for (Py_ssize_t index = call->positional_only; index < call->count; index++) {
        if (PyTuple_GET_ITEM(call->names, index) == name) {
            return index;
        }
    }
    for (Py_ssize_t index = call->positional_only; index < call->count; index++) {
        if (is_same_text(PyTuple_GET_ITEM(call->names, index), name)) {
            return index;
        }
    }
    return -1;
}

/* Bind arguments to the parameters, as borrowed references; tell whether they fit. */
static int
call_bind(const call_t *call, PyObject *const *args, Py_ssize_t nargs, PyObject *keywords, PyObject **bound)
{
    Py_ssize_t count = call->count;
    if (nargs > count) {
        return 0;
    }
    for (Py_ssize_t index = 0; index < count; index++) {
        bound[index] = index < nargs ? args[index] : NULL;
    }
    Py_ssize_t named = keywords == NULL ? 0 : PyTuple_GET_SIZE(keywords);
    for (Py_ssize_t index = 0; index < named; index++) {
        Py_ssize_t place = call_parameter(call, PyTuple_GET_ITEM(keywords, index));
        if (place < 0 || bound[place] != NULL) {
            return 0;
        }
        bound[place] = args[nargs + index];
    }
    Py_ssize_t first_default = count - PyTuple_GET_SIZE(call->defaults);
    for (Py_ssize_t index = nargs; index < count; index++) {
        if (bound[index] == NULL) {
            if (index < first_default) {
                return 0;
            }
            bound[index] = PyTuple_GET_ITEM(call->defaults, index - first_default);
        }
    }
    return 1;
}

/* Return the place of the arguments in the scope: the only one itself, or a tuple of all. */
static inline PyObject *
call_slot(PyObject *const *bound, Py_ssize_t count)
{
    if (count == 1) {
        return Py_NewRef(bound[0]);
    }
    return tuple_of(bound, count);
}

/* Return what stands in for an instance, borrowed, or NULL if that is not known yet. */
static PyObject *
call_token(call_t *call, PyObject *instance)
{
    PyObject *number = PyLong_FromVoidPtr(instance);
    PyObject *record = number == NULL ? NULL : PyDict_GetItemWithError(call->tokens, number);
    Py_XDECREF(number);
    if (record == NULL || !PyTuple_CheckExact(record)) {
        PyErr_Clear();
        return NULL;
    }
    PyObject *reference = PyTuple_GET_ITEM(record, 0);
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *referent;
    if (PyWeakref_GetRef(reference, &referent) < 0) {
        PyErr_Clear();
        return NULL;
    }
    Py_XDECREF(referent); /* the caller holds the instance */
#else
    PyObject *referent = PyWeakref_GetObject(reference);
#endif
    return referent == instance ? PyTuple_GET_ITEM(record, 1) : NULL;
}

/* Tell whether arguments that are equal make the same key: a str is never equal to an int or None, but 1 == 1.0 == True. */
static int
are_told_apart(PyObject *const *bound, Py_ssize_t first, Py_ssize_t count)
{
    for (Py_ssize_t index = first; index < count; index++) {
        if (!PyUnicode_CheckExact(bound[index]) && !PyLong_CheckExact(bound[index]) && bound[index] != Py_None) {
            return 0;
        }
    }
    return 1;
}

/* Return the key of arguments, a new reference; those in `slot` are what it is remembered by, or are it. */
static PyObject *
call_key(call_t *call, PyObject *slot, PyObject *const *bound)
{
    if (call->key_for == NULL) {
        return PyTuple_Pack(2, (PyObject *)call->scope, slot);
    }
    PyObject *key = PyDict_GetItemWithError(call->known, slot);
    if (key != NULL || PyErr_Occurred()) {
        return Py_XNewRef(key);
    }
    key = PyObject_Vectorcall(call->key_for, bound, (size_t)call->count, NULL);
    if (key == NULL) {
        return NULL;
    }
    int64_t most = call->table->most_entries < MOST_KNOWN ? call->table->most_entries : MOST_KNOWN;
    if (PyDict_GET_SIZE(call->known) >= most + 1) {
        PyDict_Clear(call->known);
    }
    if (PyDict_SetItem(call->known, slot, key) < 0) {
        Py_CLEAR(key);
    }
    return key;
}

/* Go on in Python with `handle.load(key, *arguments)`; a coroutine gets the name of the function. */
static PyObject *
call_go_on(call_t *call, PyObject *key, PyObject *const *bound)
{
    PyObject *args[MOST_PARAMETERS + 1];
    args[0] = key;
    memcpy(args + 1, bound, (size_t)call->count * sizeof(PyObject *));
    PyObject *result = PyObject_Vectorcall(call->load, args, (size_t)call->count + 1, NULL);
    if (result != NULL && call->is_async && PyCoro_CheckExact(result)) {
        module_t *module = call->table->module;
        PyObject *const names[] = {module->name, module->qualname};
        for (int index = 0; index < 2; index++) {
            PyObject *name = call->dict == NULL ? NULL : PyDict_GetItemWithError(call->dict, names[index]);
            if (name != NULL && PyObject_SetAttr(result, names[index], name) < 0) {
                PyErr_Clear();
            }
        }
    }
    return result;
}

/* Ask `handle.settle` or `handle.fail` to end a flight: (flight, tags, arguments, value or error). */
static PyObject *
call_end(call_t *call, const char *method, flight_t *flight, PyObject *tags, PyObject *const *bound, PyObject *outcome)
{
    PyObject *arguments = tuple_of(bound, call->count);
    if (arguments == NULL) {
        return NULL;
    }
    PyObject *result = PyObject_CallMethod(call->handle, method, "OOOO", flight, tags, arguments, outcome);
    Py_DECREF(arguments);
    return result;
}

/* End a flight with the error that is on its way, and let it go on. */
static PyObject *
call_fail(call_t *call, flight_t *flight, PyObject *tags, PyObject *const *bound)
{
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    if (traceback != NULL) {
        PyException_SetTraceback(error, traceback);
    }
    PyObject *result = call_end(call, "fail", flight, tags, bound, error);
    Py_XDECREF(result);
    shortcut_strike(call->shortcut, flight); /* there may have been no room for another call of Python */
    restore_unless_interrupted(type, error, traceback);
    return NULL;
}

/* Load by the shortest way a flight that has begun. */
static PyObject *
call_fly(call_t *call, flight_t *flight, PyObject *tags, PyObject *const *bound)
{
    call->tally->misses++;
    PyObject *value = shortcut_run(call->shortcut, flight, call->function, bound, call->count);
    int landed =
        value == NULL ? -1 : PyCoro_CheckExact(value) ? 0 : shortcut_touch_down(call->shortcut, flight, value, tags);
    if (landed == 0) {
        Py_SETREF(value, call_end(call, "settle", flight, tags, bound, value));
        if (value == NULL) {
            shortcut_strike(call->shortcut, flight);
        }
    }
    else if (landed < 0) {
        Py_XDECREF(value);
        value = call_fail(call, flight, tags, bound);
    }
    return value;
}

/* Return the tags of a call, a new reference. */
static PyObject *
call_tags(call_t *call, PyObject *const *bound)
{
    if (call->is_plain) {
        return Py_NewRef(call->table->module->empty);
    }
    PyObject *arguments = tuple_of(bound, call->count);
    PyObject *tags = arguments == NULL ? NULL : PyObject_CallOneArg(call->tags_of, arguments);
    Py_XDECREF(arguments);
    return tags;
}

/* Load by the shortest way if nobody else is concerned, else in Python. */
static PyObject *
call_load(call_t *call, PyObject *key, PyObject *const *bound)
{
    if (call->shortcut == NULL) {
        return call_go_on(call, key, bound);
    }
    PyObject *tags = call_tags(call, bound);
    flight_t *flight = tags == NULL ? NULL : flight_make(call->shortcut->flight_type, key);
    int has_begun = flight == NULL ? -1 : shortcut_take_off(call->shortcut, flight);
    PyObject *value = NULL;
    if (has_begun >= 0) {
        value = has_begun ? call_fly(call, flight, tags, bound) : call_go_on(call, key, bound);
    }
    Py_XDECREF(tags);
    Py_XDECREF((PyObject *)flight);
    return value;
}

/* Answer a call that is a miss, and whose arguments are its place in the function's scope. */
static PyObject *
call_miss(call_t *call, PyObject *slot, PyObject *const *bound)
{
    PyObject *key = PyTuple_Pack(2, (PyObject *)call->scope, slot);
    PyObject *result = key == NULL ? NULL : call_load(call, key, bound);
    Py_XDECREF(key);
    return result;
}

/* Return the answer to a call if it is at hand; NULL with an error, or without one for a miss. */
static inline PyObject *
call_answer(call_t *call, scope_t *scope, PyObject *slot, PyObject *const *bound)
{
    if (!call->is_async) {
        return table_look_up(call->table, scope, slot, call->tally);
    }
    entry_t *entry = table_look_up_entry(call->table, scope, slot);
    return entry == NULL ? NULL : hit_make(call, entry, bound);
}

/* Tell whether the error of a look-up will come again, from where it is expected: a coroutine raises when it is awaited,
   and what is not hashable has a message of its own. */
static int
call_may_fail_later(const call_t *call)
{
    return PyErr_ExceptionMatches(call->is_async ? PyExc_Exception : PyExc_TypeError);
}

/* Answer the call of a method, or of a function whose key is made of its arguments. What nobody can key yet is Python's. */
static PyObject *
call_keyed(call_t *call, PyObject *const *args, size_t nargsf, PyObject *keywords, PyObject *const *bound)
{
    PyObject *places[MOST_PARAMETERS];
    int is_method = call->tokens != NULL;
    PyObject *token = is_method && call->count ? call_token(call, bound[0]) : NULL;
    PyObject *result = NULL;
    if ((token != NULL || !is_method) && (call->key_for == NULL || are_told_apart(bound, is_method, call->count))) {
        memcpy(places, bound, (size_t)call->count * sizeof(PyObject *));
        if (is_method) {
            places[0] = token;
        }
        PyObject *place = call_slot(places, call->count);
        PyObject *key = place == NULL ? NULL : call_key(call, place, bound);
        if (key != NULL) {
            scope_t *scope;
            PyObject *slot = split_key(call->table->module, key, &scope);
            result = call_answer(call, scope == NULL ? call->table->entries : scope, slot, bound);
            if (result == NULL && !PyErr_Occurred()) {
                result = call_load(call, key, bound);
                Py_DECREF(place);
                Py_DECREF(key);
                return result;
            }
        }
        Py_XDECREF(place);
        Py_XDECREF(key);
    }
    if (result == NULL && (!PyErr_Occurred() || call_may_fail_later(call))) {
        PyErr_Clear();
        result = PyObject_Vectorcall(call->fallback, args, nargsf, keywords);
    }
    return result;
}

static PyObject *
call_vectorcall(call_t *call, PyObject *const *args, size_t nargsf, PyObject *keywords)
{
    Py_ssize_t nargs = PyVectorcall_NARGS(nargsf);
    PyObject *space[MOST_PARAMETERS];
    PyObject *const *bound = args;
    if (nargs != call->count || keywords != NULL) {
        if (!call_bind(call, args, nargs, keywords, space)) {
            return PyObject_Vectorcall(call->fallback, args, nargsf, keywords);
        }
        bound = space;
    }
    if (!call->is_plain) {
        return call_keyed(call, args, nargsf, keywords, bound);
    }
    PyObject *slot = call_slot(bound, call->count);
    if (slot == NULL) {
        return NULL;
    }
    PyObject *result = call_answer(call, call->scope, slot, bound);
    if (result == NULL && !PyErr_Occurred()) {
        result = call_miss(call, slot, bound);
    }
    else if (result == NULL && call_may_fail_later(call)) {
        PyErr_Clear();
        result = PyObject_Vectorcall(call->fallback, args, nargsf, keywords);
    }
    Py_DECREF(slot);
    return result;
}

static PyObject *
call_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"table",    "scope",    "tally",   "load",     "fallback",        "function",
                            "handle",   "shortcut", "names",   "defaults", "positional_only", "is_async",
                            "tokens",   "bind",     "key_for", "tags_of",  "is_plain",        NULL};
    module_t *module = module_of(type);
    PyObject *table, *scope, *tally, *load, *fallback, *function, *handle, *shortcut, *parameters, *defaults;
    PyObject *tokens, *bind, *key_for, *tags_of;
    Py_ssize_t positional_only;
    int is_async, is_plain;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!O!O!OOOOOO!O!npOOOOp:Call", names, module->table, &table, module->scope,
                                     &scope, module->tally, &tally, &load, &fallback, &function, &handle, &shortcut,
                                     &PyTuple_Type, &parameters, &PyTuple_Type, &defaults, &positional_only, &is_async,
                                     &tokens, &bind, &key_for, &tags_of, &is_plain)) {
        return NULL;
    }
    if (tokens != Py_None && !PyDict_CheckExact(tokens)) {
        PyErr_SetString(PyExc_TypeError, "tokens must be a dictionary, or None");
        return NULL;
    }
    if (shortcut != Py_None && Py_TYPE(shortcut) != module->shortcut) {
        PyErr_SetString(PyExc_TypeError, "shortcut must be a compiled one, or None");
        return NULL;
    }
    Py_ssize_t count = PyTuple_GET_SIZE(parameters);
    if (count > MOST_PARAMETERS || PyTuple_GET_SIZE(defaults) > count || positional_only < 0 || positional_only > count) {
        PyErr_SetString(PyExc_ValueError, "too many parameters");
        return NULL;
    }
    for (Py_ssize_t index = 0; index < count; index++) {
        if (!PyUnicode_CheckExact(PyTuple_GET_ITEM(parameters, index))) {
            PyErr_SetString(PyExc_TypeError, "the parameters' names must be str");
            return NULL;
        }
    }
    call_t *call = (call_t *)type->tp_alloc(type, 0);
    if (call == NULL) {
        return NULL;
    }
    call->vectorcall = (vectorcallfunc)call_vectorcall;
    call->table = (table_t *)Py_NewRef(table);
    call->scope = (scope_t *)Py_NewRef(scope);
    call->tally = (tally_t *)Py_NewRef(tally);
    call->load = Py_NewRef(load);
    call->fallback = Py_NewRef(fallback);
    call->function = Py_NewRef(function);
    call->handle = Py_NewRef(handle);
    call->shortcut = shortcut == Py_None ? NULL : (shortcut_t *)Py_NewRef(shortcut);
    call->tokens = tokens == Py_None ? NULL : Py_NewRef(tokens);
    call->bind = bind == Py_None ? NULL : Py_NewRef(bind);
    call->key_for = key_for == Py_None ? NULL : Py_NewRef(key_for);
    call->tags_of = Py_NewRef(tags_of);
    call->names = Py_NewRef(parameters);
    call->defaults = Py_NewRef(defaults);
    call->count = count;
    call->positional_only = positional_only;
    call->is_async = is_async;
    call->is_plain = is_plain;
    call->known = PyDict_New();
    if (call->known == NULL) {
        Py_CLEAR(call);
    }
    return (PyObject *)call;
}

static int
call_traverse(call_t *call, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(call));
    Py_VISIT(call->table);
    Py_VISIT(call->scope);
    Py_VISIT(call->tally);
    Py_VISIT(call->load);
    Py_VISIT(call->fallback);
    Py_VISIT(call->function);
    Py_VISIT(call->handle);
    Py_VISIT(call->tokens);
    Py_VISIT(call->bind);
    Py_VISIT(call->key_for);
    Py_VISIT(call->tags_of);
    Py_VISIT(call->known);
    Py_VISIT(call->shortcut);
    Py_VISIT(call->names);
    Py_VISIT(call->defaults);
    Py_VISIT(call->dict);
    return 0;
}

/* What a call needs stays until the end: a finalizer of the same garbage may still call it. */
static int
call_clear(call_t *call)
{
    Py_CLEAR(call->dict);
    return 0;
}

static void
call_dealloc(call_t *call)
{
    PyTypeObject *type = Py_TYPE(call);
    PyObject_GC_UnTrack(call);
    if (call->weakrefs != NULL) {
        PyObject_ClearWeakRefs((PyObject *)call);
    }
    Py_CLEAR(call->dict);
    Py_CLEAR(call->table);
    Py_CLEAR(call->scope);
    Py_CLEAR(call->tally);
    Py_CLEAR(call->load);
    Py_CLEAR(call->fallback);
    Py_CLEAR(call->function);
    Py_CLEAR(call->handle);
    Py_CLEAR(call->tokens);
    Py_CLEAR(call->bind);
    Py_CLEAR(call->key_for);
    Py_CLEAR(call->tags_of);
    Py_CLEAR(call->known);
    Py_CLEAR(call->shortcut);
    Py_CLEAR(call->names);
    Py_CLEAR(call->defaults);
    type->tp_free(call);
    Py_DECREF(type);
}

static PyObject *
call_descr_get(PyObject *self, PyObject *instance, PyObject *Py_UNUSED(owner))
{
    call_t *call = (call_t *)self;
    if (instance == NULL || instance == Py_None) {
        return Py_NewRef(self);
    }
    return call->bind == NULL ? PyMethod_New(self, instance) : PyObject_CallOneArg(call->bind, instance);
}

static PyObject *
call_repr(PyObject *call)
{
    PyObject *name = PyObject_GetAttrString(call, "__qualname__");
    if (name == NULL) {
        return NULL;
    }
    PyObject *text = PyUnicode_FromFormat("<cached function %S at %p>", name, call);
    Py_DECREF(name);
    return text;
}

static PyObject *
call_reduce(PyObject *call, PyObject *Py_UNUSED(ignored))
{
    return PyObject_GetAttrString(call, "__qualname__");
}

static PyMemberDef call_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(call_t, vectorcall), READONLY, NULL},
    {"__dictoffset__", T_PYSSIZET, offsetof(call_t, dict), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(call_t, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef call_getset[] = {
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef call_methods[] = {
    {"__reduce__", call_reduce, METH_NOARGS, "Return the name: it is pickled by name, as functions are."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot call_slots[] = {
    {Py_tp_doc, "A function whose calls a cache answers."},
    {Py_tp_new, call_new},
    {Py_tp_dealloc, call_dealloc},
    {Py_tp_traverse, call_traverse},
    {Py_tp_clear, call_clear},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_descr_get, call_descr_get},
    {Py_tp_repr, call_repr},
    {Py_tp_members, call_members},
    {Py_tp_getset, call_getset},
    {Py_tp_methods, call_methods},
    {0, NULL},
};

static PyType_Spec call_spec = {
    .name = "credenza.memory._table.Call",
    .basicsize = sizeof(call_t),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = call_slots,
};

#endif
