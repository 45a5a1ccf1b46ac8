/* What all parts of the compiled table share: its structures, its clock, and what differs between versions of Python. */

#ifndef CREDENZA_COMMON_H
#define CREDENZA_COMMON_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#if defined(_WIN32)
#include <windows.h>
#endif

/* Without the GIL, whoever looks at a table or changes it is alone with it; with the GIL these are braces. */
#ifndef Py_BEGIN_CRITICAL_SECTION
#define Py_BEGIN_CRITICAL_SECTION(object) {
#define Py_END_CRITICAL_SECTION() }
#endif

#define FOREVER_NS ((int64_t)1 << 62)

/* Flags of an entry. A hit needs no more than the clock while none of the first three is set. */
#define DEAD 1u       /* it left the table */
#define SLOW 2u       /* a hit needs more than the clock */
#define TAGGED 4u     /* a hit needs a look at the epoch, too */
#define ABSENT 8u     /* the value is the NotFound that the loader raised */
#define WAS_EVICTED 16u
#define WAS_EXPIRED 32u
#define IS_DUE 64u    /* it is in a bucket of the expiry */

typedef struct entry entry_t;

typedef struct {
    entry_t *first, *last;
} queue_t;

typedef struct scope scope_t;

/* What few entries need. */
typedef struct {
    int64_t expire_ns;
    int64_t read_ns;
    int64_t idle_ns;
    int64_t retry_ns;
    int64_t load_ns;
    int64_t weight;
    int64_t epoch; /* the table's when its tags were last found alive */
    int64_t failures;
    PyObject *tags; /* a tuple of Tag, or NULL */
    PyObject *seen; /* bytes, or NULL */
} extra_t;

/* A value with its key, its times and its places. It is not known to the garbage collector: its table visits what it
   holds, if nothing but the table holds the entry. So it costs no header of the collector's, and a million of them are one
   object to it. */
struct entry {
    PyObject_HEAD
    PyObject *slot;          /* its place in its scope */
    PyObject *value;
    Py_hash_t hash;          /* of `slot`, from the moment when it was put */
    int64_t fresh_ns;
    extra_t *extra;          /* NULL for most */
    uint32_t load_ns;        /* UINT32_MAX: in `extra` */
    uint8_t freq;
    uint8_t queue;           /* 0 for none */
    uint8_t flags;
    /* A hit has seen enough. */
    scope_t *scope;          /* NULL: made for a table's own scope, and not put there yet */
    PyObject *policy;
    int64_t stored_ns;
    int64_t stamp;           /* eviction's own */
    entry_t *before, *after; /* in its eviction queue */
    entry_t **due_link;      /* what points at it in its bucket of the expiry */
    entry_t *due_after;
};

/* A hash table of entries with open addressing. The entries are the table's: the places are borrowed. */
struct scope {
    PyObject_HEAD
    PyObject *name;          /* NULL for a table's own scope, whose keys stand alone */
    entry_t **places;
    size_t mask;
    Py_ssize_t count;
    uint64_t version;        /* counts what moves entries, so that a look-up notices what a key's __eq__ did meanwhile */
    int ignores_tags;
    PyObject *weakrefs;
};

typedef struct {
    PyObject_HEAD
    PyObject *name;
    Py_ssize_t count;
    int is_dead;
} tag_t;

typedef struct {
    PyObject_HEAD
    long long hits, stale_hits, misses, joins, shared_hits, loads, load_ns, stores, evictions, expirations;
} tally_t;

typedef struct {
    PyTypeObject *entry, *scope, *tag, *tally, *table, *call, *hit, *shortcut, *store, *lock_type, *state_fields, *flight_fields;
    PyTypeObject *get; /* tiers.base.Get, a named tuple of one */
    PyObject *evicted, *expired, *missing;       /* EventKind.EVICTED, EventKind.EXPIRED, MISSING */
    PyObject *monotonic_ns, *suspended_ns;       /* the library's clocks */
    PyObject *configuration_error;
    PyObject *idle_ttl_ns, *name, *qualname;     /* names of attributes */
    PyObject *acquire, *release, *set, *fences, *events, *listeners, *registers, *empty;
    PyObject *free_hits; /* those that were awaited, to be used again; not a reference, as all above are */
    int free_count;
    uint32_t crc_tables[8][256];
} module_t;

static struct PyModuleDef table_module;

static inline module_t *
module_of(PyTypeObject *type)
{
    return (module_t *)PyModule_GetState(PyType_GetModuleByDef(type, &table_module));
}

static inline int64_t
expire_ns_of(const entry_t *entry)
{
    return entry->extra == NULL ? entry->fresh_ns : entry->extra->expire_ns;
}

static inline int64_t
weight_of(const entry_t *entry)
{
    return entry->extra == NULL ? 1 : entry->extra->weight;
}

/* When the entry expires if nobody reads it until then. */
static inline int64_t
deadline_ns_of(const entry_t *entry)
{
    const extra_t *extra = entry->extra;
    if (extra == NULL) {
        return entry->fresh_ns;
    }
    if (extra->idle_ns && extra->read_ns + extra->idle_ns < extra->expire_ns) {
        return extra->read_ns + extra->idle_ns;
    }
    return extra->expire_ns;
}

/* Go on with the error that was fetched; another one that came meanwhile is lost, unless it is for the whole program (Ctrl+C). */
static inline void
restore_unless_interrupted(PyObject *type, PyObject *value, PyObject *traceback)
{
    if (PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_Exception)) {
        Py_XDECREF(type);
        Py_XDECREF(value);
        Py_XDECREF(traceback);
        return;
    }
    PyErr_Restore(type, value, traceback);
}

#endif
