/* A hit: one look-up and a look at the clock. */

#ifndef CREDENZA_LOOKUP_H
#define CREDENZA_LOOKUP_H

static inline int
is_simple(const table_t *table, const entry_t *entry)
{
    return !(entry->flags & (DEAD | SLOW)) && (!(entry->flags & TAGGED) || entry->extra->epoch == table->epoch);
}

/* Ask a clock that is a callable; 1 for fresh, 0 for not, -1 for an error. It is user code: everything may have changed. */
static int
is_fresh_by_callable(table_t *table, entry_t *entry)
{
    int64_t now_ns = 0;
    Py_INCREF(entry);
    PyObject *clock = Py_NewRef(table->clock);
    PyObject *now = PyObject_CallNoArgs(clock);
    int result = now == NULL ? -1 : as_int64(now, &now_ns);
    Py_XDECREF(now);
    Py_DECREF(clock);
    if (result == 0) {
        result = is_simple(table, entry) && now_ns < entry->fresh_ns && now_ns < table->fresh_until_ns;
    }
    Py_DECREF(entry);
    return result;
}

static inline int
is_fresh(table_t *table, entry_t *entry)
{
    int mode = table->clock_mode;
    if (mode == CLOCK_IS_CALLABLE) {
        return is_fresh_by_callable(table, entry);
    }
    int64_t until_ns = entry->fresh_ns < table->fresh_until_ns ? entry->fresh_ns : table->fresh_until_ns;
    return coarse_now_ns(mode, &table->sleep) + COARSE_SLACK_NS < until_ns || exact_now_ns(mode) < until_ns;
}

/* Return the value of an entry if the clock is all that it takes, and count the hit; else NULL, perhaps with an error. */
static inline PyObject *
table_serve(table_t *table, entry_t *entry, tally_t *tally)
{
    if (!is_simple(table, entry) || is_fresh(table, entry) <= 0) {
        return NULL;
    }
    if (entry->freq < MOST_FREQ) { /* it is still there */
        entry->freq++;
    }
    tally->hits++;
    return Py_NewRef(entry->value);
}

/* Return the value at `slot` if the clock is all that it takes; else NULL, with an error if __hash__, __eq__ or the clock
   raised one. */
static inline PyObject *
table_look_up(table_t *table, scope_t *scope, PyObject *slot, tally_t *tally)
{
    Py_hash_t hash = hash_of(slot);
    if (hash == -1) {
        return NULL;
    }
    PyObject *value = NULL;
    Py_BEGIN_CRITICAL_SECTION(table);
    entry_t *entry = scope_find(scope, slot, hash);
    value = entry == NULL ? NULL : table_serve(table, entry, tally);
    Py_END_CRITICAL_SECTION();
    return value;
}

/* Return the entry at `slot`, a new reference, if the clock is all that it will take; else NULL, as above. */
static inline entry_t *
table_look_up_entry(table_t *table, scope_t *scope, PyObject *slot)
{
    Py_hash_t hash = hash_of(slot);
    if (hash == -1) {
        return NULL;
    }
    entry_t *entry = NULL;
    Py_BEGIN_CRITICAL_SECTION(table);
    entry = scope_find(scope, slot, hash);
    entry = entry != NULL && is_simple(table, entry) ? (entry_t *)Py_NewRef((PyObject *)entry) : NULL;
    Py_END_CRITICAL_SECTION();
    return entry;
}

/* hit(entries, slot, tally) */
static PyObject *
table_hit(table_t *table, PyObject *const *args, Py_ssize_t nargs)
{
    module_t *module = table->module;
    if (nargs != 3 || Py_TYPE(args[0]) != module->scope || Py_TYPE(args[2]) != module->tally) {
        PyErr_SetString(PyExc_TypeError, "hit takes a table's or a scope's entries, a slot and a tally");
        return NULL;
    }
    PyObject *value = table_look_up(table, (scope_t *)args[0], args[1], (tally_t *)args[2]);
    return value != NULL || PyErr_Occurred() ? value : Py_NewRef(module->missing);
}

#endif
