/* The lock of a cache: re-entrant, as a finalizer may use the cache in the middle of a step.

   It is held around memory operations only, so whoever waits for it waits without looking for signals. */

#ifndef CREDENZA_LOCK_H
#define CREDENZA_LOCK_H

#include "_entry.h"

typedef struct {
    PyObject_HEAD
    PyThread_type_lock lock;
    unsigned long owner; /* the thread that holds it; only that one finds itself here */
    Py_ssize_t count;
} lock_t;

static void
lock_acquire(lock_t *lock)
{
    unsigned long me = PyThread_get_thread_ident();
    if (lock->count && lock->owner == me) {
        lock->count++;
        return;
    }
    if (PyThread_acquire_lock(lock->lock, NOWAIT_LOCK) != PY_LOCK_ACQUIRED) {
        Py_BEGIN_ALLOW_THREADS
        PyThread_acquire_lock(lock->lock, WAIT_LOCK);
        Py_END_ALLOW_THREADS
    }
    lock->owner = me;
    lock->count = 1;
}

static int
lock_release(lock_t *lock)
{
    if (!lock->count || lock->owner != PyThread_get_thread_ident()) {
        PyErr_SetString(PyExc_RuntimeError, "cannot release un-acquired lock");
        return -1;
    }
    if (--lock->count == 0) {
        lock->owner = 0;
        PyThread_release_lock(lock->lock);
    }
    return 0;
}

static PyObject *
lock_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, ":Lock", names)) {
        return NULL;
    }
    lock_t *lock = (lock_t *)type->tp_alloc(type, 0);
    if (lock != NULL && (lock->lock = PyThread_allocate_lock()) == NULL) {
        Py_DECREF(lock);
        return PyErr_NoMemory();
    }
    return (PyObject *)lock;
}

static void
lock_dealloc(lock_t *lock)
{
    PyTypeObject *type = Py_TYPE(lock);
    if (lock->lock != NULL) {
        if (lock->count) {
            PyThread_release_lock(lock->lock);
        }
        PyThread_free_lock(lock->lock);
    }
    type->tp_free(lock);
    Py_DECREF(type);
}

static PyObject *
lock_acquire_method(lock_t *lock, PyObject *Py_UNUSED(ignored))
{
    lock_acquire(lock);
    return Py_NewRef(Py_True);
}

static PyObject *
lock_release_method(lock_t *lock, PyObject *Py_UNUSED(ignored))
{
    return lock_release(lock) < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *
lock_exit(lock_t *lock, PyObject *const *Py_UNUSED(args), Py_ssize_t Py_UNUSED(nargs))
{
    return lock_release(lock) < 0 ? NULL : Py_NewRef(Py_None);
}

static PyMethodDef lock_methods[] = {
    {"acquire", (PyCFunction)lock_acquire_method, METH_NOARGS, "Wait for the lock and take it."},
    {"release", (PyCFunction)lock_release_method, METH_NOARGS, "Give it back; RuntimeError for who does not hold it."},
    {"__enter__", (PyCFunction)lock_acquire_method, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))lock_exit, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot lock_slots[] = {
    {Py_tp_doc, "A re-entrant lock."},
    {Py_tp_new, lock_new},
    {Py_tp_dealloc, lock_dealloc},
    {Py_tp_methods, lock_methods},
    {0, NULL},
};

static PyType_Spec lock_spec = {
    .name = "credenza.memory._table.Lock",
    .basicsize = sizeof(lock_t),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = lock_slots,
};

#endif
