//! limbeck for C: load, predict, last_error, free. `limbeck.h` is made from this file.
//!
//! A model is loaded once and shared by all threads; sessions are lent inside (`classifier`). What fails returns NULL
//! or −1, and [`limbeck_last_error`] says why, on the thread that asked. A panic, which would be a fault of limbeck's own,
//! is caught and told as an error too: a library does not end its host. (Where the host is built with `panic = "abort"`
//! it does; it never unwinds into C.)

mod classifier;
#[cfg(test)]
mod tests;

use classifier::Classifier;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::ptr;
use std::slice;

/// A model that is open for prediction. Any number of threads may use it at once.
pub struct LimbeckModel(Classifier);

thread_local! {
    static LAST_ERROR: RefCell<CString> = RefCell::default();
}

/// Opens a .limbeck file, which must carry its tokenizer. The file is mapped, not read: it must not be written to while
/// the model is in use (replace a file by renaming another over it).
///
/// path: zero-terminated, UTF-8 where the system asks for it. Returns NULL on failure; limbeck_last_error says why.
///
/// # Safety
/// `path` is NULL or points to a zero-terminated string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn limbeck_load(path: *const c_char) -> *mut LimbeckModel {
    guarded(ptr::null_mut(), || {
        // SAFETY: the caller's promise.
        let path = unsafe { string(path) }.ok_or("limbeck_load: the path is NULL")?;
        let model = Classifier::open(&native(path)?).map_err(|error| error.to_string())?;
        Ok(Box::into_raw(Box::new(LimbeckModel(model))))
    })
}

/// The number of labels, and so of logits and probabilities; 0 if model is NULL.
///
/// # Safety
/// `model` is NULL, or from `limbeck_load` and not yet freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn limbeck_labels(model: *const LimbeckModel) -> usize {
    // SAFETY: the caller's promise.
    unsafe { model.as_ref() }.map_or(0, |model| model.0.labels().len())
}

/// The name of a label, counted from 0: zero-terminated UTF-8 that lives as long as the model. NULL if there is no such
/// label, or model is NULL.
///
/// # Safety
/// `model` is NULL, or from `limbeck_load` and not yet freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn limbeck_label(model: *const LimbeckModel, label: usize) -> *const c_char {
    // SAFETY: the caller's promise.
    let model = unsafe { model.as_ref() };
    model.and_then(|model| model.0.label(label)).map_or(ptr::null(), CStr::as_ptr)
}

/// Classifies one text: length bytes of UTF-8 (no zero at their end is needed). What is longer than the model can read is
/// cut. Where logits or probabilities is not NULL, limbeck_labels(model) floats are written there.
///
/// Returns the label with the highest logit, counted from 0, or -1 on failure; limbeck_last_error says why.
///
/// # Safety
/// `model` is NULL, or from `limbeck_load` and not yet freed; `text` is NULL or has `length` bytes; `logits` and
/// `probabilities` are NULL, or have room for as many floats as there are labels and do not overlap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn limbeck_predict(
    model: *const LimbeckModel,
    text: *const c_char,
    length: usize,
    logits: *mut f32,
    probabilities: *mut f32,
) -> isize {
    // SAFETY: the caller's promise.
    guarded(-1, || unsafe { predicted(model, [Some((text, length)), None], [logits, probabilities]) })
}

/// Classifies a pair of sentences, as limbeck_predict does one text. Of a pair that is longer than the model can read the
/// longer sentence is cut first.
///
/// # Safety
/// As `limbeck_predict`, for `first` and for `second`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn limbeck_predict_pair(
    model: *const LimbeckModel,
    first: *const c_char,
    first_length: usize,
    second: *const c_char,
    second_length: usize,
    logits: *mut f32,
    probabilities: *mut f32,
) -> isize {
    let texts = [Some((first, first_length)), Some((second, second_length))];
    // SAFETY: the caller's promise.
    guarded(-1, || unsafe { predicted(model, texts, [logits, probabilities]) })
}

/// # Safety
/// As the callers'.
unsafe fn predicted(
    model: *const LimbeckModel,
    texts: [Option<(*const c_char, usize)>; 2],
    into: [*mut f32; 2],
) -> Result<isize, String> {
    // SAFETY: the caller's promise.
    let model = &unsafe { model.as_ref() }.ok_or("limbeck_predict: the model is NULL")?.0;
    // SAFETY: the caller's promise.
    let text = |text: Option<(*const c_char, usize)>| text.map(|text| unsafe { utf8(text) }).transpose();
    let [first, second] = [text(texts[0])?, text(texts[1])?];
    let labels = model.labels().len();
    // SAFETY: the caller's promise.
    let [logits, probabilities] = into.map(|into| unsafe { room(into, labels) });
    let label = model.predict(first.unwrap_or_default(), second, logits, probabilities);
    Ok(label.map_err(|error| error.to_string())?.cast_signed())
}

/// # Safety
/// As the callers': the text is NULL, or has so many bytes.
unsafe fn utf8<'a>((text, length): (*const c_char, usize)) -> Result<&'a str, String> {
    if text.is_null() && length > 0 {
        return Err("limbeck_predict: the text is NULL".into());
    }
    // SAFETY: the caller's promise, and there is a text.
    let text = if length == 0 { &[] } else { unsafe { slice::from_raw_parts(text.cast(), length) } };
    std::str::from_utf8(text)
        .map_err(|error| format!("limbeck_predict: the text is not UTF-8 ({error}); convert it"))
}

/// Why the last call that failed on this thread did: zero-terminated UTF-8, empty if none has. It lives until the next
/// failure on this thread.
#[unsafe(no_mangle)]
pub extern "C" fn limbeck_last_error() -> *const c_char {
    LAST_ERROR.with_borrow(|error| error.as_ptr())
}

/// Closes a model, and forgets the names of its labels. No thread may be using it. NULL is left alone.
///
/// # Safety
/// `model` is NULL, or from `limbeck_load` and not yet freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn limbeck_free(model: *mut LimbeckModel) {
    if !model.is_null() {
        guarded((), || {
            // SAFETY: the caller's promise: it is the box of `limbeck_load`.
            drop(unsafe { Box::from_raw(model) });
            Ok(())
        });
    }
}

/// The version of this library, as "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn limbeck_version() -> *const c_char {
    const VERSION: &CStr =
        match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(version) => version,
            Err(_) => unreachable!(),
        };
    VERSION.as_ptr()
}

/// Runs `body`; keeps the error, or the panic, for [`limbeck_last_error`], and returns `failed` then.
fn guarded<T>(failed: T, body: impl FnOnce() -> Result<T, String>) -> T {
    // What a panic leaves behind is whole: a session that was in use is dropped, and the lock is never held.
    let error = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(done)) => return done,
        Ok(Err(error)) => error,
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().copied();
            let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
            format!("a fault of limbeck, please report it: {}", text.unwrap_or("no message"))
        }
    };
    let error = CString::new(error.replace('\0', "\u{fffd}")).expect("no zero byte is left");
    LAST_ERROR.set(error);
    failed
}

/// # Safety
/// As the callers': NULL, or zero-terminated.
unsafe fn string<'a>(from: *const c_char) -> Option<&'a CStr> {
    // SAFETY: the caller's promise.
    (!from.is_null()).then(|| unsafe { CStr::from_ptr(from) })
}

/// # Safety
/// As the callers': NULL, or room for `len` floats, which need not be any yet and which nobody else uses.
unsafe fn room<'a>(at: *mut f32, len: usize) -> Option<&'a mut [MaybeUninit<f32>]> {
    // SAFETY: the caller's promise.
    (!at.is_null()).then(|| unsafe { slice::from_raw_parts_mut(at.cast(), len) })
}

/// A path as the system has it: bytes on Unix, UTF-8 elsewhere.
fn native(path: &CStr) -> Result<std::borrow::Cow<'_, Path>, String> {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        Ok(Path::new(std::ffi::OsStr::from_bytes(path.to_bytes())).into())
    }
    #[cfg(not(unix))]
    {
        let path = path.to_str().map_err(|error| format!("limbeck_load: the path is not UTF-8: {error}"))?;
        Ok(Path::new(path).into())
    }
}
