/* What left the queues last, by 32 bits of its hash: the same as the pure `Ghosts`.

   Times are kept in 31 bits: they are told apart as long as they are less than two thousand million departures old, and
   nothing is remembered as long as that. Without memory a ghost is forgotten, which costs a hit at most. */

#ifndef CREDENZA_GHOSTS_H
#define CREDENZA_GHOSTS_H

#include "_entry.h"

#define PARTS 64
#define SAMPLED 7u
#define TIME_MASK 0x7FFFFFFFu
#define OF_MAIN 0x80000000u

/* Numbers in the order in which they came, each with its time. */
typedef struct {
    uint64_t *items;
    size_t first, count, room;
} ring_t;

typedef struct {
    uint64_t *marks; /* number << 32 | OF_MAIN | time; 0: nothing here */
    size_t mask, count;
    ring_t order, long_order, main_order;
    int64_t clock, main_clock; /* how many entries have left the small and the main queue */
    int64_t forgotten, long_forgotten, main_forgotten;
    int64_t size;
} ghosts_t;

static inline uint32_t
number_of(Py_hash_t hash)
{
    return (uint32_t)(((uint64_t)hash * UINT64_C(0x9E3779B97F4A7C15)) >> 32);
}

static inline uint64_t
mark_of(uint32_t number, int64_t time, uint32_t of_main)
{
    uint32_t kept = (uint32_t)time & TIME_MASK;
    return (uint64_t)number << 32 | of_main | (kept ? kept : 1);
}

/* Return the whole time of which a mark keeps the end. */
static inline int64_t
time_of(uint64_t mark, int64_t clock)
{
    return clock - (int64_t)(((uint32_t)clock - (uint32_t)mark) & TIME_MASK);
}

static int
ring_push(ring_t *ring, uint64_t item)
{
    if (ring->count == ring->room) {
        size_t room = ring->room ? ring->room * 2 : 16;
        uint64_t *items = PyMem_Malloc(room * sizeof(uint64_t));
        if (items == NULL) {
            return -1;
        }
        for (size_t index = 0; index < ring->count; index++) {
            items[index] = ring->items[(ring->first + index) & (ring->room - 1)];
        }
        PyMem_Free(ring->items);
        *ring = (ring_t){items, 0, ring->count, room};
    }
    ring->items[(ring->first + ring->count++) & (ring->room - 1)] = item;
    return 0;
}

static inline uint64_t
ring_first(const ring_t *ring)
{
    return ring->items[ring->first];
}

static void
ring_pop(ring_t *ring)
{
    ring->first = (ring->first + 1) & (ring->room - 1);
    ring->count--;
}

/* Return the place of a number, or the free one where it would be. */
static inline size_t
ghosts_place(const ghosts_t *ghosts, uint32_t number)
{
    size_t place = number & ghosts->mask;
    while (ghosts->marks[place] && (uint32_t)(ghosts->marks[place] >> 32) != number) {
        place = (place + 1) & ghosts->mask;
    }
    return place;
}

static void
ghosts_remove(ghosts_t *ghosts, size_t gap)
{
    size_t mask = ghosts->mask;
    for (size_t place = (gap + 1) & mask; ghosts->marks[place]; place = (place + 1) & mask) {
        size_t home = (uint32_t)(ghosts->marks[place] >> 32) & mask;
        if (((place - home) & mask) >= ((place - gap) & mask)) {
            ghosts->marks[gap] = ghosts->marks[place];
            gap = place;
        }
    }
    ghosts->marks[gap] = 0;
    ghosts->count--;
}

static int
ghosts_grow(ghosts_t *ghosts)
{
    size_t room = ghosts->marks == NULL ? 16 : (ghosts->mask + 1) * 2;
    uint64_t *old = ghosts->marks, *marks = PyMem_Calloc(room, sizeof(uint64_t));
    if (marks == NULL) {
        return -1;
    }
    size_t old_room = old == NULL ? 0 : ghosts->mask + 1;
    ghosts->marks = marks;
    ghosts->mask = room - 1;
    for (size_t index = 0; index < old_room; index++) {
        if (old[index]) {
            marks[ghosts_place(ghosts, (uint32_t)(old[index] >> 32))] = old[index];
        }
    }
    PyMem_Free(old);
    return 0;
}

static void
ghosts_put(ghosts_t *ghosts, uint64_t mark)
{
    if ((ghosts->marks == NULL || ghosts->count + 1 > (ghosts->mask + 1) / 8 * 7) && ghosts_grow(ghosts) < 0) {
        return;
    }
    size_t place = ghosts_place(ghosts, (uint32_t)(mark >> 32));
    ghosts->count += ghosts->marks[place] == 0;
    ghosts->marks[place] = mark;
}

/* Drop a ghost that is still what it was when it was put. */
static void
ghosts_drop(ghosts_t *ghosts, uint64_t mark)
{
    if (ghosts->marks != NULL) {
        size_t place = ghosts_place(ghosts, (uint32_t)(mark >> 32));
        if (ghosts->marks[place] == mark) {
            ghosts_remove(ghosts, place);
        }
    }
}

/* Return when a number left the small queue, below 0 if it left the main queue, 0 if unknown; forget it. */
static int64_t
ghosts_recall(ghosts_t *ghosts, uint32_t number)
{
    if (ghosts->marks == NULL) {
        return 0;
    }
    size_t place = ghosts_place(ghosts, number);
    uint64_t mark = ghosts->marks[place];
    if (!mark) {
        return 0;
    }
    ghosts_remove(ghosts, place);
    if (mark & OF_MAIN) {
        int64_t time = time_of(mark, ghosts->main_clock);
        return time > ghosts->main_forgotten ? -time : 0;
    }
    int64_t time = time_of(mark, ghosts->clock);
    return time > (number & SAMPLED ? ghosts->forgotten : ghosts->long_forgotten) ? time : 0;
}

/* Return by how much a key that came back moves the share: the less the longer it was away. */
static int64_t
ghosts_step(const ghosts_t *ghosts, int64_t seen)
{
    int64_t age = seen > 0 ? ghosts->clock - seen : ghosts->main_clock + seen;
    int64_t near = ghosts->size >= 16 ? ghosts->size / 16 : 1;
    if (age < near) {
        return 2 * PARTS;
    }
    return age < ghosts->size ? PARTS * near / (age + 1) : 0;
}

/* Put a mark at the end of a ring, and drop two at most of those that have to be forgotten from its beginning; of what is
   `spared`, which another ring remembers, only the place here. */
static void
ghosts_turn(ghosts_t *ghosts, ring_t *ring, uint64_t mark, int64_t clock, int64_t forgotten, int spares)
{
    if (ring_push(ring, mark) < 0) {
        return;
    }
    for (int turn = 0; turn < 2 && time_of(ring_first(ring), clock) <= forgotten; turn++) {
        uint64_t old = ring_first(ring);
        ring_pop(ring);
        if (!spares || (old >> 32) & SAMPLED) {
            ghosts_drop(ghosts, old);
        }
    }
}

static inline int64_t
later(int64_t one, int64_t other)
{
    return one > other ? one : other;
}

/* Remember what leaves the small queue of a cache of so many entries. */
static void
ghosts_add(ghosts_t *ghosts, uint32_t number, int64_t size)
{
    int64_t clock = ++ghosts->clock;
    uint64_t mark = mark_of(number, clock, 0);
    ghosts->size = size;
    ghosts_put(ghosts, mark);
    ghosts->forgotten = later(ghosts->forgotten, clock - 2 * size);
    ghosts_turn(ghosts, &ghosts->order, mark, clock, ghosts->forgotten, 1);
    ghosts->long_forgotten = later(ghosts->long_forgotten, clock - 6 * size);
    if (!(number & SAMPLED)) {
        ghosts_turn(ghosts, &ghosts->long_order, mark, clock, ghosts->long_forgotten, 0);
    }
}

/* Remember what leaves the main queue of a cache of so many entries. */
static void
ghosts_add_of_main(ghosts_t *ghosts, uint32_t number, int64_t size)
{
    int64_t clock = ++ghosts->main_clock;
    uint64_t mark = mark_of(number, clock, OF_MAIN);
    ghosts->size = size;
    ghosts_put(ghosts, mark);
    ghosts->main_forgotten = later(ghosts->main_forgotten, clock - (size + 1) / 2);
    ghosts_turn(ghosts, &ghosts->main_order, mark, clock, ghosts->main_forgotten, 0);
}

static void
ghosts_free(ghosts_t *ghosts)
{
    PyMem_Free(ghosts->marks);
    PyMem_Free(ghosts->order.items);
    PyMem_Free(ghosts->long_order.items);
    PyMem_Free(ghosts->main_order.items);
    memset(ghosts, 0, sizeof(*ghosts));
}

#endif
