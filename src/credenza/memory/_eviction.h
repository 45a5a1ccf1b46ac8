/* Who has to go when the table is full: the same decisions as the pure `S3Fifo` and `Lru`, which say why. */

#ifndef CREDENZA_EVICTION_H
#define CREDENZA_EVICTION_H

#include "_ghosts.h"

#define MOST_FREQ 3
#define MOST_CAPACITY ((int64_t)1 << 50)
#define QUEUES 3

enum { NO_QUEUE, SMALL, MAIN, WINDOW };

typedef struct {
    int is_lru;
    int is_filling;
    queue_t window, small, main;
    int64_t window_count, small_count, main_count; /* the small one's with the window's */
    int64_t small_cost;
    int64_t share, least_share, most_share; /* of the small queue, in parts of a cost */
    ghosts_t ghosts;
} eviction_t;

static inline int64_t
between(int64_t least, int64_t value, int64_t most)
{
    return value < least ? least : value > most ? most : value;
}

static void
eviction_init(eviction_t *eviction, int is_lru, int64_t capacity)
{
    memset(eviction, 0, sizeof(*eviction));
    capacity = capacity < MOST_CAPACITY ? capacity : MOST_CAPACITY;
    eviction->is_lru = is_lru;
    eviction->is_filling = 1;
    eviction->least_share = later(PARTS, capacity * PARTS / 64);
    eviction->most_share = later(PARTS, capacity * PARTS * 15 / 16);
    eviction->share = later(eviction->least_share, capacity * PARTS / 10);
    eviction->ghosts.size = 1;
}

static void
eviction_free(eviction_t *eviction)
{
    ghosts_free(&eviction->ghosts);
}

/* Return one of the queues, in the order in which `living` tells them. */
static const queue_t *
eviction_queue(const eviction_t *eviction, int index)
{
    const queue_t *const queues[QUEUES] = {&eviction->small, &eviction->window, &eviction->main};
    return queues[index];
}

static inline int64_t
share_of_small(const eviction_t *eviction)
{
    return eviction->share / PARTS;
}

/* A weight as it moves the share: one of an entry that fits is smaller. */
static inline int64_t
cost_of(const entry_t *entry)
{
    int64_t weight = weight_of(entry);
    return weight < MOST_CAPACITY ? weight : MOST_CAPACITY;
}

static void
eviction_append_to_main(eviction_t *eviction, entry_t *entry)
{
    entry->queue = MAIN;
    entry->stamp = eviction->ghosts.clock;
    queue_append(&eviction->main, entry);
    eviction->main_count++;
}

static void
eviction_append_to_small(eviction_t *eviction, entry_t *entry, uint8_t queue)
{
    entry->queue = queue;
    queue_append(queue == WINDOW ? &eviction->window : &eviction->small, entry);
    eviction->window_count += queue == WINDOW;
    eviction->small_count++;
    eviction->small_cost += weight_of(entry);
}

static void
eviction_discard(eviction_t *eviction, entry_t *entry)
{
    if (entry->queue == MAIN) {
        queue_remove(&eviction->main, entry);
        eviction->main_count--;
    }
    else {
        queue_remove(entry->queue == WINDOW ? &eviction->window : &eviction->small, entry);
        eviction->window_count -= entry->queue == WINDOW;
        eviction->small_count--;
        eviction->small_cost -= weight_of(entry);
    }
    entry->queue = NO_QUEUE;
}

/* Let the hits of the oldest entry in the window count from now on. */
static void
eviction_leave_window(eviction_t *eviction)
{
    entry_t *entry = eviction->window.first;
    queue_remove(&eviction->window, entry);
    eviction->window_count--;
    entry->queue = SMALL;
    entry->freq = 0;
    queue_append(&eviction->small, entry);
}

/* Return the head of the small queue; there is one. */
static entry_t *
eviction_oldest_in_small(eviction_t *eviction)
{
    if (eviction->small_count == eviction->window_count) {
        eviction_leave_window(eviction);
    }
    return eviction->small.first;
}

/* Take the head of the small queue to the end of the main queue. */
static void
eviction_move_to_main(eviction_t *eviction, entry_t *entry)
{
    eviction_discard(eviction, entry);
    entry->freq = 0;
    eviction_append_to_main(eviction, entry);
}

/* Give the head of the main queue another round. */
static void
eviction_spare(eviction_t *eviction, entry_t *entry)
{
    queue_remove(&eviction->main, entry);
    entry->freq >>= 1;
    entry->stamp = eviction->ghosts.clock;
    queue_append(&eviction->main, entry);
}

/* Learn from a key that came back; tell whether its entry may go to the main queue at once. */
static int
eviction_welcomes(eviction_t *eviction, const entry_t *entry, int64_t seen)
{
    int64_t step = ghosts_step(&eviction->ghosts, seen) * cost_of(entry);
    if (seen < 0) {
        eviction->share = later(eviction->least_share, eviction->share - step);
        return 0;
    }
    eviction->share = between(0, eviction->share + step, eviction->most_share);
    entry_t *oldest = eviction->main.first;
    if (oldest == NULL) {
        return 1;
    }
    if (oldest->freq) {
        eviction_spare(eviction, oldest);
        oldest = eviction->main.first;
    }
    return seen - eviction->small_count >= oldest->stamp;
}

/* Let the main queue have room that the small queue lost: its head becomes the one that has to go next there. */
static void
eviction_give_to_main(eviction_t *eviction)
{
    int64_t share = share_of_small(eviction);
    if (eviction->small_cost <= share) {
        return;
    }
    entry_t *entry = eviction_oldest_in_small(eviction);
    if (eviction->small_cost - weight_of(entry) < share) {
        return;
    }
    entry_t *oldest = eviction->main.first;
    if (entry->freq || oldest == NULL) {
        eviction_move_to_main(eviction, entry);
        return;
    }
    eviction_discard(eviction, entry);
    entry->queue = MAIN;
    entry->stamp = oldest->stamp;
    queue_prepend(&eviction->main, entry);
    eviction->main_count++;
}

static void
eviction_admit(eviction_t *eviction, entry_t *entry)
{
    if (eviction->is_lru) {
        eviction_append_to_main(eviction, entry);
        return;
    }
    int64_t seen = ghosts_recall(&eviction->ghosts, number_of(entry->hash));
    if ((seen && eviction_welcomes(eviction, entry, seen)) ||
        (eviction->is_filling && eviction->small_cost >= share_of_small(eviction))) {
        eviction_append_to_main(eviction, entry);
        return;
    }
    eviction_append_to_small(eviction, entry, WINDOW);
    if (!eviction->is_filling) {
        eviction_give_to_main(eviction);
    }
    int64_t half = eviction->small_count / 2, sixteenth = (eviction->small_count + eviction->main_count) / 16;
    int64_t most = later(1, half < sixteenth ? half : sixteenth);
    while (eviction->window_count > most) {
        eviction_leave_window(eviction);
    }
}

static void
eviction_replace(eviction_t *eviction, entry_t *old, entry_t *entry)
{
    if (!eviction->is_lru) {
        entry->freq = old->freq;
    }
    if (old->queue == MAIN) {
        eviction_append_to_main(eviction, entry);
    }
    else {
        eviction_append_to_small(eviction, entry, old->queue);
    }
    eviction_discard(eviction, old);
}

static void
eviction_touch(eviction_t *eviction, entry_t *entry)
{
    if (eviction->is_lru && entry->queue == MAIN) {
        queue_remove(&eviction->main, entry);
        queue_append(&eviction->main, entry);
    }
}

/* Remove and return the entry that has to go; there is one. */
static entry_t *
eviction_victim(eviction_t *eviction)
{
    if (eviction->is_lru) {
        entry_t *entry = eviction->main.first;
        eviction_discard(eviction, entry);
        return entry;
    }
    eviction->is_filling = 0;
    int64_t size = eviction->small_count + eviction->main_count;
    for (;;) {
        if (eviction->main_count && eviction->small_cost < share_of_small(eviction)) {
            entry_t *entry = eviction->main.first;
            if (!entry->freq) {
                eviction_discard(eviction, entry);
                ghosts_add_of_main(&eviction->ghosts, number_of(entry->hash), size);
                return entry;
            }
            eviction_spare(eviction, entry);
            continue;
        }
        entry_t *entry = eviction_oldest_in_small(eviction);
        if (!entry->freq) {
            eviction_discard(eviction, entry);
            eviction->share = later(eviction->least_share, eviction->share - 2 * cost_of(entry));
            ghosts_add(&eviction->ghosts, number_of(entry->hash), size);
            return entry;
        }
        eviction_move_to_main(eviction, entry);
    }
}

#endif
