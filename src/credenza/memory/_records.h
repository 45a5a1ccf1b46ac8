/* From many keys to what looks them up, and from records to values: `codec.plain`, compiled. The layout of a record is that
   of `codec.envelope`, behind the header of `tiers.base`. */

#ifndef CREDENZA_RECORDS_H
#define CREDENZA_RECORDS_H

#define ENVELOPE_AT 25
#define MAGIC_BYTES 4     /* with the flags */
#define CHECKSUM_AT (ENVELOPE_AT + 4)
#define CHECKED_AT (ENVELOPE_AT + 8)
#define STORED_AT (ENVELOPE_AT + 16)
#define FRESH_AT (ENVELOPE_AT + 24)
#define EPOCH_AT (ENVELOPE_AT + 48)
#define SEQUENCE_AT (ENVELOPE_AT + 56)
#define COUNT_AT (ENVELOPE_AT + 68)
#define PAYLOAD_AT (ENVELOPE_AT + 70)
#define EPOCH_BYTES 8

/* What the records of one request are held against. */
typedef struct {
    const uint8_t *magic, *epoch;
    PyObject *decode;
    int64_t now_ms;
    uint64_t floor;
    Py_ssize_t most_bytes;
} plain_t;

/* Eight tables, so that eight bytes take one step: "slicing by 8", Kounavis and Berry, A systematic approach to building high
   performance software-based CRC generators, ISCC 2005. */
static void
crc_prepare(uint32_t tables[8][256])
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++) {
            crc = crc & 1 ? crc >> 1 ^ 0xEDB88320u : crc >> 1;
        }
        tables[0][byte] = crc;
    }
    for (int table = 1; table < 8; table++) {
        for (int byte = 0; byte < 256; byte++) {
            uint32_t before = tables[table - 1][byte];
            tables[table][byte] = before >> 8 ^ tables[0][before & 0xFF];
        }
    }
}

/* Return the CRC-32 of some bytes that follow others, whose is `crc`; as `zlib.crc32`. */
static uint32_t
crc_of(const uint32_t tables[8][256], const uint8_t *bytes, Py_ssize_t size, uint32_t crc)
{
    crc = ~crc;
    for (; size >= 8; bytes += 8, size -= 8) {
        uint32_t low = crc ^ ((uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24);
        crc = tables[7][low & 0xFF] ^ tables[6][low >> 8 & 0xFF] ^ tables[5][low >> 16 & 0xFF] ^ tables[4][low >> 24] ^
              tables[3][bytes[4]] ^ tables[2][bytes[5]] ^ tables[1][bytes[6]] ^ tables[0][bytes[7]];
    }
    for (; size > 0; bytes++, size--) {
        crc = crc >> 8 ^ tables[0][(crc ^ *bytes) & 0xFF];
    }
    return ~crc;
}

static inline uint64_t
big_endian(const uint8_t *bytes, int size)
{
    uint64_t number = 0;
    for (int index = 0; index < size; index++) {
        number = number << 8 | bytes[index];
    }
    return number;
}

/* Tell whether a record is plain, fresh, current and undamaged. */
static int
is_plain(const module_t *module, const plain_t *plain, PyObject *get, PyObject *record)
{
    PyObject *name = PyTuple_Check(get) && PyTuple_GET_SIZE(get) == 1 ? PyTuple_GET_ITEM(get, 0) : NULL;
    if (name == NULL || !PyBytes_CheckExact(name) || !PyBytes_CheckExact(record)) {
        return 0;
    }
    const uint8_t *bytes = (const uint8_t *)PyBytes_AS_STRING(record);
    Py_ssize_t size = PyBytes_GET_SIZE(record);
    if (size < PAYLOAD_AT || size > plain->most_bytes || bytes[0] != 'V' ||
        memcmp(bytes + ENVELOPE_AT, plain->magic, MAGIC_BYTES) || memcmp(bytes + EPOCH_AT, plain->epoch, EPOCH_BYTES) ||
        bytes[COUNT_AT] || bytes[COUNT_AT + 1] || big_endian(bytes + SEQUENCE_AT, 8) < plain->floor) {
        return 0;
    }
    uint64_t stored_ms = big_endian(bytes + STORED_AT, 8), fresh_ms = big_endian(bytes + FRESH_AT, 8);
    if (plain->now_ms >= 0 && stored_ms <= (uint64_t)plain->now_ms && (uint64_t)plain->now_ms - stored_ms >= fresh_ms) {
        return 0;
    }
    uint32_t crc = crc_of(module->crc_tables, (const uint8_t *)PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name),
                          plain->magic[MAGIC_BYTES - 1]);
    crc = crc_of(module->crc_tables, bytes + CHECKED_AT, size - CHECKED_AT, crc);
    return crc == (uint32_t)big_endian(bytes + CHECKSUM_AT, 4);
}

/* Return the value of a record, a new reference; NULL if it takes a closer look, or with an error that is for the program. */
static PyObject *
plain_value(const module_t *module, const plain_t *plain, PyObject *get, PyObject *record)
{
    if (!is_plain(module, plain, get, record)) {
        return NULL;
    }
    PyObject *payload = PyBytes_FromStringAndSize(PyBytes_AS_STRING(record) + PAYLOAD_AT, PyBytes_GET_SIZE(record) - PAYLOAD_AT);
    PyObject *value = payload == NULL ? NULL : PyObject_CallOneArg(plain->decode, payload);
    Py_XDECREF(payload);
    if (value == NULL && PyErr_ExceptionMatches(PyExc_Exception)) {
        PyErr_Clear();
    }
    return value;
}

/* Append the values of records to a list, and the places of those that have none to another. */
static int
plain_values(const module_t *module, const plain_t *plain, PyObject *looked_up, PyObject *records, PyObject *values,
             PyObject *others)
{
    /* A decoder runs the user's code, so the sizes are looked at anew. */
    for (Py_ssize_t index = 0; index < PySequence_Fast_GET_SIZE(looked_up) && index < PySequence_Fast_GET_SIZE(records); index++) {
        PyObject *get = Py_NewRef(PySequence_Fast_GET_ITEM(looked_up, index));
        PyObject *record = Py_NewRef(PySequence_Fast_GET_ITEM(records, index));
        PyObject *value = plain_value(module, plain, get, record);
        Py_DECREF(get);
        Py_DECREF(record);
        int result = value == NULL && PyErr_Occurred() ? -1 : 0;
        if (value == NULL && result == 0) {
            PyObject *place = PyLong_FromSsize_t(index);
            result = place == NULL ? -1 : PyList_Append(others, place);
            Py_XDECREF(place);
            value = Py_NewRef(module->missing);
        }
        if (result < 0 || PyList_Append(values, value) < 0) {
            Py_XDECREF(value);
            return -1;
        }
        Py_DECREF(value);
    }
    return 0;
}

/* fresh_values(looked_up, records, plain, now_ms, epoch, floor) */
static PyObject *
records_fresh_values(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    module_t *module = PyModule_GetState(self);
    if (takes("fresh_values", nargs, 6) < 0) {
        return NULL;
    }
    PyObject *of_all = args[2], *epoch = args[4];
    if (!PyTuple_Check(of_all) || PyTuple_GET_SIZE(of_all) != 3 || !PyBytes_Check(PyTuple_GET_ITEM(of_all, 0)) ||
        !PyBytes_Check(epoch)) {
        PyErr_SetString(PyExc_TypeError, "fresh_values takes a Plain and an epoch of bytes");
        return NULL;
    }
    PyObject *magic = PyTuple_GET_ITEM(of_all, 0);
    plain_t plain = {.decode = PyTuple_GET_ITEM(of_all, 2), .most_bytes = PyLong_AsSsize_t(PyTuple_GET_ITEM(of_all, 1))};
    int is_odd = PyErr_Occurred() != NULL || as_int64(args[3], &plain.now_ms) < 0;
    if (!is_odd) {
        plain.floor = PyLong_AsUnsignedLongLong(args[5]);
        is_odd = PyErr_Occurred() != NULL;
    }
    if (is_odd) {
        PyErr_Clear();
    }
    plain.magic = (const uint8_t *)PyBytes_AS_STRING(magic);
    plain.epoch = (const uint8_t *)PyBytes_AS_STRING(epoch);
    if (is_odd || PyBytes_GET_SIZE(magic) != MAGIC_BYTES || PyBytes_GET_SIZE(epoch) != EPOCH_BYTES) {
        plain.most_bytes = -1; /* none of them is plain: numbers that no record can hold take a closer look */
    }
    PyObject *looked_up = PySequence_Fast(args[0], "what was looked up must be a sequence");
    PyObject *records = looked_up == NULL ? NULL : PySequence_Fast(args[1], "records must be a sequence");
    PyObject *result = NULL;
    if (records != NULL && PySequence_Fast_GET_SIZE(looked_up) != PySequence_Fast_GET_SIZE(records)) {
        PyErr_SetString(PyExc_ValueError, "there must be as many records as were looked up");
    }
    else if (records != NULL) {
        PyObject *values = PyList_New(0), *others = PyList_New(0);
        if (values != NULL && others != NULL && plain_values(module, &plain, looked_up, records, values, others) == 0) {
            result = PyTuple_Pack(2, values, others);
        }
        Py_XDECREF(values);
        Py_XDECREF(others);
    }
    Py_XDECREF(looked_up);
    Py_XDECREF(records);
    return result;
}

/* Return the name of a key as bytes, a new reference: its own text behind the prefix, or what `name_of` says. */
static PyObject *
name_of_key(const char *prefix, Py_ssize_t size, PyObject *key, PyObject *name_of)
{
    if (!PyUnicode_CheckExact(key) || !PyUnicode_IS_COMPACT_ASCII(key)) {
        return PyObject_CallOneArg(name_of, key);
    }
    Py_ssize_t length = PyUnicode_GET_LENGTH(key);
    const char *text = (const char *)PyUnicode_1BYTE_DATA(key);
    if (length > 0 && text[0] == '~') {
        return PyObject_CallOneArg(name_of, key);
    }
    PyObject *name = PyBytes_FromStringAndSize(NULL, size + length);
    if (name != NULL) {
        memcpy(PyBytes_AS_STRING(name), prefix, (size_t)size);
        memcpy(PyBytes_AS_STRING(name) + size, text, (size_t)length);
    }
    return name;
}

/* gets(prefix, keys, name_of) */
static PyObject *
records_gets(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    module_t *module = PyModule_GetState(self);
    Py_ssize_t size;
    const char *prefix = takes("gets", nargs, 3) < 0 ? NULL : PyUnicode_AsUTF8AndSize(args[0], &size);
    PyObject *keys = prefix == NULL ? NULL : PySequence_Fast(args[1], "keys must be a sequence");
    PyObject *made = keys == NULL ? NULL : PyList_New(0);
    for (Py_ssize_t index = 0; made != NULL && index < PySequence_Fast_GET_SIZE(keys); index++) {
        PyObject *key = Py_NewRef(PySequence_Fast_GET_ITEM(keys, index));
        PyObject *name = name_of_key(prefix, size, key, args[2]);
        PyObject *get = name == NULL ? NULL : module->get->tp_alloc(module->get, 1);
        Py_DECREF(key);
        if (get == NULL) {
            Py_XDECREF(name);
            Py_CLEAR(made);
            break;
        }
        PyTuple_SET_ITEM(get, 0, name);
        if (PyList_Append(made, get) < 0) {
            Py_CLEAR(made);
        }
        Py_DECREF(get);
    }
    Py_XDECREF(keys);
    return made;
}

static PyMethodDef records_methods[] = {
    {"gets", FAST(records_gets), "See `codec.plain.gets`."},
    {"fresh_values", FAST(records_fresh_values), "See `codec.plain.fresh_values`."},
    {NULL, NULL, 0, NULL},
};

#endif
