/* What a call of a cached coroutine function returns for a hit. */

#ifndef CREDENZA_HIT_H
#define CREDENZA_HIT_H

#define MOST_PARAMETERS 8
#define MOST_KNOWN 100000
#define MOST_FREE_HITS 16

typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    table_t *table;
    scope_t *scope;
    tally_t *tally;
    PyObject *load;      /* load(key, *arguments) */
    PyObject *function;  /* what loads */
    PyObject *handle;    /* ends what the shortcut could not */
    shortcut_t *shortcut; /* NULL: none */
    PyObject *fallback;  /* a Python function of the same signature that does it all */
    PyObject *names;     /* of the parameters */
    PyObject *defaults;  /* of the last parameters */
    PyObject *tokens;    /* of a method: what stands in for an instance, by its id; NULL: no method */
    PyObject *bind;      /* of a method: returns the bound one */
    PyObject *key_for;   /* makes the key of the arguments; NULL: they are the key */
    PyObject *tags_of;   /* makes the tags of a tuple of arguments */
    PyObject *known;     /* the keys made so far, by the arguments */
    PyObject *dict;
    PyObject *weakrefs;
    Py_ssize_t count;    /* of the parameters */
    Py_ssize_t positional_only;
    int is_async;
    int is_plain;        /* the arguments make the key, and there are no tags */
} call_t;

/* While neither the entry nor the coroutine is there, it was awaited or closed. */
typedef struct {
    PyObject_HEAD
    call_t *call;
    entry_t *entry;
    PyObject *arguments; /* what it was called with, where the place of the entry does not tell; or NULL */
    PyObject *coroutine; /* goes on in Python, if the entry was invalidated before the hit was awaited */
} hit_t;

static PyObject *call_miss(call_t *, PyObject *, PyObject *const *);

/* The awaitable of a hit ------------------------------------------------------------------------------------------- */

/* Hits live for a moment, so a few are kept to be used again; they hold nothing meanwhile, not their type either. */
static hit_t *
hit_new(module_t *module)
{
#ifndef Py_GIL_DISABLED
    hit_t *hit = (hit_t *)module->free_hits;
    if (hit != NULL) {
        module->free_hits = hit->coroutine;
        module->free_count--;
        _Py_NewReference((PyObject *)hit);
        Py_INCREF(module->hit);
        return hit;
    }
#endif
    return PyObject_GC_New(hit_t, module->hit);
}

static void
hits_free(module_t *module)
{
    while (module->free_hits != NULL) {
        hit_t *hit = (hit_t *)module->free_hits;
        module->free_hits = hit->coroutine;
        PyObject_GC_Del(hit);
    }
}

/* Tell whether nobody could tell the place of an entry from the arguments that found it. */
static int
is_place_of_arguments(const call_t *call, const entry_t *entry, PyObject *const *bound)
{
    for (Py_ssize_t index = 0; index < call->count; index++) {
        PyObject *part = call->count == 1 ? entry->slot : PyTuple_GET_ITEM(entry->slot, index);
        if (part != bound[index] && !(PyUnicode_CheckExact(part) && PyUnicode_CheckExact(bound[index])) &&
            !(PyLong_CheckExact(part) && PyLong_CheckExact(bound[index]))) {
            return 0;
        }
    }
    return 1;
}

static PyObject *
hit_make(call_t *call, entry_t *entry, PyObject *const *bound)
{
    int is_told_by_place = call->is_plain && is_place_of_arguments(call, entry, bound);
    PyObject *arguments = is_told_by_place ? NULL : tuple_of(bound, call->count);
    hit_t *hit = arguments == NULL && !is_told_by_place ? NULL : hit_new(call->table->module);
    if (hit == NULL) {
        Py_DECREF(entry);
        Py_XDECREF(arguments);
        return NULL;
    }
    hit->arguments = arguments;
    hit->call = (call_t *)Py_NewRef((PyObject *)call);
    hit->entry = entry;
    hit->coroutine = NULL;
    PyObject_GC_Track(hit);
    return (PyObject *)hit;
}

static int
hit_traverse(hit_t *hit, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(hit));
    Py_VISIT(hit->call);
    Py_VISIT(hit->coroutine);
    Py_VISIT(hit->arguments);
    if (hit->entry != NULL && Py_REFCNT(hit->entry) == 1) { /* nobody else visits what it holds */
        Py_VISIT(hit->entry->slot);
        Py_VISIT(hit->entry->value);
    }
    return 0;
}

static int
hit_clear(hit_t *hit)
{
    Py_CLEAR(hit->entry);
    Py_CLEAR(hit->coroutine);
    Py_CLEAR(hit->arguments);
    return 0;
}

static void
hit_dealloc(hit_t *hit)
{
    PyTypeObject *type = Py_TYPE(hit);
    module_t *module = hit->call->table->module;
    PyObject_GC_UnTrack(hit);
    Py_XDECREF((PyObject *)hit->entry);
    Py_XDECREF(hit->coroutine);
    Py_XDECREF(hit->arguments);
    Py_DECREF((PyObject *)hit->call);
#ifndef Py_GIL_DISABLED
    if (module->free_count < MOST_FREE_HITS) {
        hit->coroutine = module->free_hits;
        module->free_hits = (PyObject *)hit;
        module->free_count++;
        Py_DECREF(type);
        return;
    }
#endif
    PyObject_GC_Del(hit);
    Py_DECREF(type);
}

static PyObject *
cannot_reuse(void)
{
    PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
    return NULL;
}

/* Return the value if the entry may still be served; NULL with an error or with a coroutine to go on with. */
static PyObject *
hit_resolve(hit_t *hit)
{
    entry_t *entry = hit->entry;
    if (entry == NULL) {
        return hit->coroutine == NULL ? cannot_reuse() : NULL;
    }
    hit->entry = NULL;
    PyObject *value = NULL;
    Py_BEGIN_CRITICAL_SECTION(hit->call->table);
    value = table_serve(hit->call->table, entry, hit->call->tally);
    Py_END_CRITICAL_SECTION();
    if (value != NULL || PyErr_Occurred()) {
        Py_DECREF(entry);
        return value;
    }
    if (hit->arguments != NULL) {
        hit->coroutine = PyObject_CallObject(hit->call->fallback, hit->arguments);
    }
    else {
        PyObject *const *bound = hit->call->count == 1 ? &entry->slot : &PyTuple_GET_ITEM(entry->slot, 0);
        hit->coroutine = call_miss(hit->call, entry->slot, bound);
    }
    Py_DECREF(entry);
    return value;
}

static PySendResult
hit_am_send(hit_t *hit, PyObject *sent, PyObject **result)
{
    if (sent != NULL && sent != Py_None && hit->entry != NULL) {
        PyErr_SetString(PyExc_TypeError, "can't send non-None value to a just-started coroutine");
        *result = NULL;
        return PYGEN_ERROR;
    }
    *result = hit_resolve(hit);
    if (*result != NULL) {
        return PYGEN_RETURN;
    }
    if (hit->coroutine == NULL) {
        return PYGEN_ERROR;
    }
    return PyIter_Send(hit->coroutine, sent == NULL ? Py_None : sent, result);
}

/* Raise StopIteration with the value in it, which may be an exception or a tuple; or hand on what was yielded. */
static PyObject *
hit_outcome(PySendResult kind, PyObject *value)
{
    if (kind != PYGEN_RETURN) {
        return value;
    }
    PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, value);
    Py_DECREF(value);
    if (stop != NULL) {
        PyErr_SetObject(PyExc_StopIteration, stop);
        Py_DECREF(stop);
    }
    return NULL;
}

static PyObject *
hit_send(hit_t *hit, PyObject *sent)
{
    PyObject *value;
    PySendResult kind = hit_am_send(hit, sent, &value);
    return hit_outcome(kind, value);
}

/* What `await` calls from Python 3.12 on: the StopIteration is looked at for its value and thrown away at once. */
static PyObject *
hit_next(hit_t *hit)
{
    PyObject *value;
    PySendResult kind = hit_am_send(hit, Py_None, &value);
#if PY_VERSION_HEX >= 0x030C0000
    if (kind == PYGEN_RETURN) {
        PyTypeObject *type = (PyTypeObject *)PyExc_StopIteration;
        PyObject *stop = type->tp_new(type, hit->call->table->module->empty, NULL);
        if (stop == NULL) {
            Py_DECREF(value);
            return NULL;
        }
        Py_XSETREF(((PyStopIterationObject *)stop)->value, value);
        PyErr_SetRaisedException(stop);
        return NULL;
    }
#endif
    return hit_outcome(kind, value);
}

/* Raise an exception as `throw` is told to. */
static void
raise_thrown(PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *error = args[0];
    if (PyExceptionInstance_Check(error)) {
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
    }
    else {
        PyErr_SetObject(error, nargs > 1 ? args[1] : NULL);
    }
}

static PyObject *
hit_throw(hit_t *hit, PyObject *const *args, Py_ssize_t nargs)
{
    if (hit->coroutine != NULL) {
        PyObject *method = PyObject_GetAttrString(hit->coroutine, "throw");
        PyObject *result = method == NULL ? NULL : PyObject_Vectorcall(method, args, (size_t)nargs, NULL);
        Py_XDECREF(method);
        return result;
    }
    if (nargs < 1 || nargs > 3) {
        PyErr_SetString(PyExc_TypeError, "throw takes an exception, and perhaps its value and traceback");
    }
    else if (nargs > 2 && args[2] != Py_None && !PyTraceBack_Check(args[2])) {
        PyErr_SetString(PyExc_TypeError, "throw() third argument must be a traceback object");
    }
    else if (!PyExceptionInstance_Check(args[0]) && !PyExceptionClass_Check(args[0])) {
        PyErr_Format(PyExc_TypeError, "exceptions must be classes or instances deriving from BaseException, not %.100s",
                     Py_TYPE(args[0])->tp_name);
    }
    else if (hit->entry == NULL) {
        cannot_reuse();
    }
    else {
        Py_CLEAR(hit->entry);
        raise_thrown(args, nargs);
    }
    return NULL;
}

static PyObject *
hit_close(hit_t *hit, PyObject *Py_UNUSED(ignored))
{
    Py_CLEAR(hit->entry);
    return hit->coroutine == NULL ? Py_NewRef(Py_None) : PyObject_CallMethod(hit->coroutine, "close", NULL);
}

/* What a coroutine tells of itself: its own if it goes on, else that of one that has no frame. */
static PyObject *
hit_get_state(hit_t *hit, void *name)
{
    if (hit->coroutine != NULL) {
        return PyObject_GetAttrString(hit->coroutine, name);
    }
    return Py_NewRef(strcmp(name, "cr_await") == 0 || strcmp(name, "cr_frame") == 0 ? Py_None : Py_False);
}

static PyObject *
hit_get_name(hit_t *hit, void *name)
{
    return PyObject_GetAttrString((PyObject *)hit->call, name);
}

static PyObject *
hit_repr(hit_t *hit)
{
    PyObject *name = PyObject_GetAttrString((PyObject *)hit->call, "__qualname__");
    PyObject *text = name == NULL ? NULL : PyUnicode_FromFormat("<coroutine object %S at %p>", name, hit);
    Py_XDECREF(name);
    return text;
}

static PyGetSetDef hit_getset[] = {
    {"__name__", (getter)hit_get_name, NULL, NULL, "__name__"},
    {"__qualname__", (getter)hit_get_name, NULL, NULL, "__qualname__"},
    {"cr_await", (getter)hit_get_state, NULL, NULL, "cr_await"},
    {"cr_frame", (getter)hit_get_state, NULL, NULL, "cr_frame"},
    {"cr_running", (getter)hit_get_state, NULL, NULL, "cr_running"},
    {"cr_suspended", (getter)hit_get_state, NULL, NULL, "cr_suspended"},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef hit_methods[] = {
    {"send", (PyCFunction)hit_send, METH_O, "Raise StopIteration with the value."},
    {"throw", (PyCFunction)(void (*)(void))hit_throw, METH_FASTCALL, "Raise the exception."},
    {"close", (PyCFunction)hit_close, METH_NOARGS, "Let go of the value."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot hit_slots[] = {
    {Py_tp_doc, "What a call of a cached coroutine function returns for a hit: a coroutine that is done when it is awaited."},
    {Py_tp_dealloc, hit_dealloc},
    {Py_tp_traverse, hit_traverse},
    {Py_tp_clear, hit_clear},
    {Py_tp_repr, hit_repr},
    {Py_tp_iternext, hit_next},
    {Py_am_await, PyObject_SelfIter},
    {Py_am_send, hit_am_send},
    {Py_tp_getset, hit_getset},
    {Py_tp_methods, hit_methods},
    {0, NULL},
};

static PyType_Spec hit_spec = {
    .name = "credenza.memory._table.Hit",
    .basicsize = sizeof(hit_t),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = hit_slots,
};

#endif
