/* limbeck: text in, label out. Made from tools/capi/src/lib.rs; do not edit. */

#ifndef LIMBECK_H
#define LIMBECK_H

#include <stddef.h>
#include <stdint.h>

/**
 * A model that is open for prediction. Any number of threads may use it at once.
 */
typedef struct LimbeckModel LimbeckModel;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Opens a .limbeck file, which must carry its tokenizer. The file is mapped, not read: it must not be written to while
 * the model is in use (replace a file by renaming another over it).
 *
 * path: zero-terminated, UTF-8 where the system asks for it. Returns NULL on failure; limbeck_last_error says why.
 *
 * # Safety
 * `path` is NULL or points to a zero-terminated string.
 */
struct LimbeckModel *limbeck_load(const char *path);

/**
 * The number of labels, and so of logits and probabilities; 0 if model is NULL.
 *
 * # Safety
 * `model` is NULL, or from `limbeck_load` and not yet freed.
 */
size_t limbeck_labels(const struct LimbeckModel *model);

/**
 * The name of a label, counted from 0: zero-terminated UTF-8 that lives as long as the model. NULL if there is no such
 * label, or model is NULL.
 *
 * # Safety
 * `model` is NULL, or from `limbeck_load` and not yet freed.
 */
const char *limbeck_label(const struct LimbeckModel *model,
                          size_t label);

/**
 * Classifies one text: length bytes of UTF-8 (no zero at their end is needed). What is longer than the model can read is
 * cut. Where logits or probabilities is not NULL, limbeck_labels(model) floats are written there.
 *
 * Returns the label with the highest logit, counted from 0, or -1 on failure; limbeck_last_error says why.
 *
 * # Safety
 * `model` is NULL, or from `limbeck_load` and not yet freed; `text` is NULL or has `length` bytes; `logits` and
 * `probabilities` are NULL, or have room for as many floats as there are labels and do not overlap.
 */
ptrdiff_t limbeck_predict(const struct LimbeckModel *model,
                          const char *text,
                          size_t length,
                          float *logits,
                          float *probabilities);

/**
 * Classifies a pair of sentences, as limbeck_predict does one text. Of a pair that is longer than the model can read the
 * longer sentence is cut first.
 *
 * # Safety
 * As `limbeck_predict`, for `first` and for `second`.
 */
ptrdiff_t limbeck_predict_pair(const struct LimbeckModel *model,
                               const char *first,
                               size_t first_length,
                               const char *second,
                               size_t second_length,
                               float *logits,
                               float *probabilities);

/**
 * Why the last call that failed on this thread did: zero-terminated UTF-8, empty if none has. It lives until the next
 * failure on this thread.
 */
const char *limbeck_last_error(void);

/**
 * Closes a model, and forgets the names of its labels. No thread may be using it. NULL is left alone.
 *
 * # Safety
 * `model` is NULL, or from `limbeck_load` and not yet freed.
 */
void limbeck_free(struct LimbeckModel *model);

/**
 * The version of this library, as "0.1.0".
 */
const char *limbeck_version(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* LIMBECK_H */
