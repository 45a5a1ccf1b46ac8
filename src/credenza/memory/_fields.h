/* What the shortcuts use of a cache's state and of a flight: fields here, so that nobody looks attributes up by name. */

#ifndef CREDENZA_FIELDS_H
#define CREDENZA_FIELDS_H

#include "_common.h"

/* The base of `State`, which sets them all; a state that does not fails like one without the attribute. */
typedef struct {
    PyObject_HEAD
    PyObject *lock;
    PyObject *flights;
    PyObject *random;
    long long arrivals;
    char is_closed;
} state_t;

#define PENDING 0 /* an outcome: there is none yet */

/* The base of `Flight`. */
typedef struct {
    PyObject_HEAD
    PyObject *key;
    PyObject *value;
    PyObject *outcome; /* a number */
    PyObject *signal;
    long long number, epoch, began_ns, load_ns;
} flight_t;

/* Return a new reference to what a field holds; NULL with AttributeError if that is nothing. */
static inline PyObject *
held(PyObject *field)
{
    if (field == NULL) {
        PyErr_SetString(PyExc_AttributeError, "a field that the compiled table needs was not set");
    }
    return Py_XNewRef(field);
}

/* States ----------------------------------------------------------------------------------------------------------- */

static int
state_traverse(state_t *state, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(state));
    Py_VISIT(state->lock);
    Py_VISIT(state->flights);
    Py_VISIT(state->random);
    return 0;
}

static int
state_clear(state_t *state)
{
    Py_CLEAR(state->lock);
    Py_CLEAR(state->flights);
    Py_CLEAR(state->random);
    return 0;
}

static void
state_dealloc(state_t *state)
{
    PyTypeObject *type = Py_TYPE(state);
    PyObject_GC_UnTrack(state);
    state_clear(state);
    type->tp_free(state);
    Py_DECREF(type);
}

static PyMemberDef state_members[] = {
    {"lock", T_OBJECT_EX, offsetof(state_t, lock), 0, NULL},
    {"flights", T_OBJECT_EX, offsetof(state_t, flights), 0, NULL},
    {"random", T_OBJECT_EX, offsetof(state_t, random), 0, NULL},
    {"arrivals", T_LONGLONG, offsetof(state_t, arrivals), 0, NULL},
    {"is_closed", T_BOOL, offsetof(state_t, is_closed), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot state_slots[] = {
    {Py_tp_doc, "What the shortcuts use of a cache's state; see the pure `StateFields`."},
    {Py_tp_dealloc, state_dealloc},
    {Py_tp_traverse, state_traverse},
    {Py_tp_clear, state_clear},
    {Py_tp_members, state_members},
    {0, NULL},
};

static PyType_Spec state_spec = {
    .name = "credenza.memory._table.StateFields",
    .basicsize = sizeof(state_t),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = state_slots,
};

/* Flights ---------------------------------------------------------------------------------------------------------- */

/* Return a new flight of a type that adds nothing to how one is made. */
static flight_t *
flight_make(PyTypeObject *type, PyObject *key)
{
    flight_t *flight = (flight_t *)type->tp_alloc(type, 0);
    if (flight != NULL) {
        flight->key = Py_NewRef(key);
        flight->value = Py_NewRef(Py_None);
        flight->signal = Py_NewRef(Py_None);
        flight->outcome = PyLong_FromLong(PENDING);
    }
    return flight;
}

static PyObject *
flight_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"key", "number", "epoch", "now_ns", NULL};
    PyObject *key;
    long long number, epoch, began_ns;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OLLL:Flight", names, &key, &number, &epoch, &began_ns)) {
        return NULL;
    }
    flight_t *flight = flight_make(type, key);
    if (flight != NULL) {
        flight->number = number;
        flight->epoch = epoch;
        flight->began_ns = began_ns;
    }
    return (PyObject *)flight;
}

static int
flight_traverse(flight_t *flight, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(flight));
    Py_VISIT(flight->key);
    Py_VISIT(flight->value);
    Py_VISIT(flight->outcome);
    Py_VISIT(flight->signal);
    return 0;
}

static int
flight_clear(flight_t *flight)
{
    Py_CLEAR(flight->key);
    Py_CLEAR(flight->value);
    Py_CLEAR(flight->outcome);
    Py_CLEAR(flight->signal);
    return 0;
}

static void
flight_dealloc(flight_t *flight)
{
    PyTypeObject *type = Py_TYPE(flight);
    PyObject_GC_UnTrack(flight);
    flight_clear(flight);
    type->tp_free(flight);
    Py_DECREF(type);
}

static PyMemberDef flight_members[] = {
    {"key", T_OBJECT_EX, offsetof(flight_t, key), 0, NULL},
    {"value", T_OBJECT_EX, offsetof(flight_t, value), 0, NULL},
    {"outcome", T_OBJECT_EX, offsetof(flight_t, outcome), 0, NULL},
    {"signal", T_OBJECT_EX, offsetof(flight_t, signal), 0, NULL},
    {"number", T_LONGLONG, offsetof(flight_t, number), 0, NULL},
    {"epoch", T_LONGLONG, offsetof(flight_t, epoch), 0, NULL},
    {"began_ns", T_LONGLONG, offsetof(flight_t, began_ns), 0, NULL},
    {"load_ns", T_LONGLONG, offsetof(flight_t, load_ns), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot flight_slots[] = {
    {Py_tp_doc, "What the shortcuts use of a flight; see the pure `FlightFields`."},
    {Py_tp_new, flight_new},
    {Py_tp_dealloc, flight_dealloc},
    {Py_tp_traverse, flight_traverse},
    {Py_tp_clear, flight_clear},
    {Py_tp_members, flight_members},
    {0, NULL},
};

static PyType_Spec flight_spec = {
    .name = "credenza.memory._table.FlightFields",
    .basicsize = sizeof(flight_t),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = flight_slots,
};

#endif
