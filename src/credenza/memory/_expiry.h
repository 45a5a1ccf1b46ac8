/* Which entries are due: buckets by the second of the deadline, the buckets in a heap and in a hash table by their tick. */

#ifndef CREDENZA_EXPIRY_H
#define CREDENZA_EXPIRY_H

#include "_entry.h"

#define TICK_BITS 30
#define TICK_NS ((int64_t)1 << TICK_BITS)

typedef struct {
    int64_t tick;
    entry_t *first;
} bucket_t;

typedef struct {
    bucket_t **heap;  /* the soonest first */
    bucket_t **places; /* by tick, with linear probing; twice as many as the heap has room for, or more */
    size_t count;
    size_t room;      /* of the heap, a power of two */
    int64_t next_ns;  /* before that nothing is due */
} expiry_t;

static inline size_t
expiry_place_of(int64_t tick, size_t mask)
{
    return (size_t)(((uint64_t)tick * UINT64_C(0x9E3779B97F4A7C15)) >> 24) & mask;
}

static void
expiry_look_ahead(expiry_t *expiry)
{
    expiry->next_ns = expiry->count ? expiry->heap[0]->tick * TICK_NS : FOREVER_NS;
}

static int
expiry_grow(expiry_t *expiry)
{
    size_t room = expiry->room ? expiry->room * 2 : 8;
    bucket_t **places = PyMem_Calloc(room * 2, sizeof(bucket_t *));
    bucket_t **heap = places == NULL ? NULL : PyMem_Realloc(expiry->heap, room * sizeof(bucket_t *));
    if (heap == NULL) {
        PyMem_Free(places);
        PyErr_NoMemory();
        return -1;
    }
    for (size_t index = 0; index < expiry->count; index++) {
        size_t place = expiry_place_of(heap[index]->tick, room * 2 - 1);
        while (places[place] != NULL) {
            place = (place + 1) & (room * 2 - 1);
        }
        places[place] = heap[index];
    }
    PyMem_Free(expiry->places);
    expiry->heap = heap;
    expiry->places = places;
    expiry->room = room;
    return 0;
}

/* Return the bucket of a tick, made if it is not there; NULL with MemoryError. */
static bucket_t *
expiry_bucket(expiry_t *expiry, int64_t tick)
{
    if (expiry->count == expiry->room && expiry_grow(expiry) < 0) {
        return NULL;
    }
    size_t mask = expiry->room * 2 - 1;
    size_t place = expiry_place_of(tick, mask);
    for (; expiry->places[place] != NULL; place = (place + 1) & mask) {
        if (expiry->places[place]->tick == tick) {
            return expiry->places[place];
        }
    }
    bucket_t *bucket = PyMem_Malloc(sizeof(bucket_t));
    if (bucket == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    bucket->tick = tick;
    bucket->first = NULL;
    expiry->places[place] = bucket;
    size_t index = expiry->count++;
    for (; index && expiry->heap[(index - 1) / 2]->tick > tick; index = (index - 1) / 2) {
        expiry->heap[index] = expiry->heap[(index - 1) / 2];
    }
    expiry->heap[index] = bucket;
    expiry_look_ahead(expiry);
    return bucket;
}

/* Drop the soonest bucket, which is empty. */
static void
expiry_pop(expiry_t *expiry)
{
    bucket_t *bucket = expiry->heap[0];
    size_t mask = expiry->room * 2 - 1;
    size_t gap = expiry_place_of(bucket->tick, mask);
    while (expiry->places[gap] != bucket) {
        gap = (gap + 1) & mask;
    }
    for (size_t place = (gap + 1) & mask; expiry->places[place] != NULL; place = (place + 1) & mask) {
        size_t home = expiry_place_of(expiry->places[place]->tick, mask);
        if (((place - home) & mask) >= ((place - gap) & mask)) {
            expiry->places[gap] = expiry->places[place];
            gap = place;
        }
    }
    expiry->places[gap] = NULL;
    PyMem_Free(bucket);
    bucket_t *last = expiry->heap[--expiry->count];
    size_t index = 0;
    for (size_t child = 1; child < expiry->count; child = 2 * index + 1) {
        if (child + 1 < expiry->count && expiry->heap[child + 1]->tick < expiry->heap[child]->tick) {
            child++;
        }
        if (expiry->heap[child]->tick >= last->tick) {
            break;
        }
        expiry->heap[index] = expiry->heap[child];
        index = child;
    }
    expiry->heap[index] = last;
}

/* Remember to reclaim `entry`, unless it never expires. */
static int
expiry_add(expiry_t *expiry, entry_t *entry)
{
    int64_t deadline_ns = deadline_ns_of(entry);
    if (deadline_ns >= FOREVER_NS) {
        return 0;
    }
    bucket_t *bucket = expiry_bucket(expiry, (deadline_ns >> TICK_BITS) + 1);
    if (bucket == NULL) {
        return -1;
    }
    entry->due_after = bucket->first;
    entry->due_link = &bucket->first;
    if (bucket->first != NULL) {
        bucket->first->due_link = &entry->due_after;
    }
    bucket->first = entry;
    entry->flags |= IS_DUE;
    return 0;
}

static void
expiry_discard(entry_t *entry)
{
    if (entry->flags & IS_DUE) {
        *entry->due_link = entry->due_after;
        if (entry->due_after != NULL) {
            entry->due_after->due_link = entry->due_link;
        }
        entry->due_link = NULL;
        entry->due_after = NULL;
        entry->flags &= (uint8_t)~IS_DUE;
    }
}

/* Look at one entry that may be due, and at most `*most` in all; return one whose time has passed, or NULL for no more. */
static entry_t *
expiry_due(expiry_t *expiry, int64_t now_ns, int *most)
{
    entry_t *found = NULL;
    while (*most && found == NULL && expiry->count && expiry->heap[0]->tick * TICK_NS <= now_ns) {
        entry_t *entry = expiry->heap[0]->first;
        if (entry == NULL) {
            expiry_pop(expiry);
            continue;
        }
        --*most;
        expiry_discard(entry);
        if (deadline_ns_of(entry) <= now_ns) {
            found = entry;
        }
        else if (expiry_add(expiry, entry) < 0) {
            PyErr_Clear(); /* it is reclaimed when it is met */
        }
    }
    if (!*most || found == NULL) {
        while (expiry->count && expiry->heap[0]->first == NULL && expiry->heap[0]->tick * TICK_NS <= now_ns) {
            expiry_pop(expiry);
        }
        expiry_look_ahead(expiry);
    }
    return found;
}

static void
expiry_free(expiry_t *expiry)
{
    while (expiry->count) {
        PyMem_Free(expiry->heap[--expiry->count]);
    }
    PyMem_Free(expiry->heap);
    PyMem_Free(expiry->places);
    expiry->heap = expiry->places = NULL;
    expiry->room = 0;
}

#endif
