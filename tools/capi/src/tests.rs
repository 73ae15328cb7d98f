//! The functions as C calls them.

use super::*;
use limbeck::Batch;
use limbeck::infer::{Model, Session};
use std::thread;

const TINY: &CStr = match CStr::from_bytes_with_nul(
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/tiny.limbeck\0").as_bytes(),
) {
    Ok(path) => path,
    Err(_) => unreachable!(),
};

fn last_error() -> String {
    // SAFETY: never NULL, always terminated.
    unsafe { CStr::from_ptr(limbeck_last_error()) }.to_str().unwrap().to_owned()
}

fn load() -> *mut LimbeckModel {
    // SAFETY: a terminated string.
    let model = unsafe { limbeck_load(TINY.as_ptr()) };
    assert!(!model.is_null(), "{}", last_error());
    model
}

fn predict(model: *const LimbeckModel, text: &[u8]) -> (isize, [f32; 2], [f32; 2]) {
    let (mut logits, mut probabilities) = ([f32::NAN; 2], [f32::NAN; 2]);
    // SAFETY: the model has two labels, and each slice room for as many.
    let label = unsafe {
        limbeck_predict(
            model,
            text.as_ptr().cast(),
            text.len(),
            logits.as_mut_ptr(),
            probabilities.as_mut_ptr(),
        )
    };
    (label, logits, probabilities)
}

#[test]
fn answers_are_those_of_a_session() {
    let model = load();
    let own = Model::open(Path::new(TINY.to_str().unwrap())).unwrap();
    let tokenizer = own.tokenizer().unwrap();
    for text in ["", "Unaffable.", "un un", &"un ".repeat(100), "\u{e4}\0x"] {
        let ids = tokenizer.encode(text, own.config().positions);
        let expected = Session::new(&own).logits(&Batch::from_texts([&*ids])).unwrap().to_vec();
        let (label, logits, probabilities) = predict(model, text.as_bytes());
        assert_eq!(logits[..], expected, "{text:?}");
        assert_eq!(own.config().labels[usize::try_from(label).unwrap()], own.config().label(&expected));
        assert_eq!(probabilities[..], limbeck::models::probabilities(&expected));
    }
    // SAFETY: from `load`; the names are read before the model is freed.
    unsafe {
        assert_eq!(limbeck_labels(model), 2);
        let names = [0, 1].map(|label| CStr::from_ptr(limbeck_label(model, label)).to_str().unwrap());
        assert_eq!(names, ["no", "yes"]);
        assert!(limbeck_label(model, 2).is_null());
        // Neither logits nor probabilities asked for; no text is an empty text.
        assert!(limbeck_predict(model, ptr::null(), 0, ptr::null_mut(), ptr::null_mut()) >= 0);
        limbeck_free(model);
        limbeck_free(ptr::null_mut());
    }
}

#[test]
fn pairs_are_those_of_a_session() {
    let model = load();
    let own = Model::open(Path::new(TINY.to_str().unwrap())).unwrap();
    let tokenizer = own.tokenizer().unwrap();
    for [first, second] in [["un", "able"], ["", "."], [&"un ".repeat(9), &"able ".repeat(9)]] {
        let pair = tokenizer.encode_pair(first, second, own.config().positions);
        let expected = Session::new(&own).logits(&Batch::from_texts([pair.text()])).unwrap().to_vec();
        let mut logits = [f32::NAN; 2];
        let (a, b, none) = (first.as_bytes(), second.as_bytes(), ptr::null_mut());
        let (a_text, b_text) = (a.as_ptr().cast(), b.as_ptr().cast());
        // SAFETY: each text has its length, and there is room for two logits.
        let label = unsafe {
            limbeck_predict_pair(model, a_text, a.len(), b_text, b.len(), logits.as_mut_ptr(), none)
        };
        assert_eq!(logits[..], expected, "{first:?} {second:?}");
        assert_eq!(own.config().labels[usize::try_from(label).unwrap()], own.config().label(&expected));
    }
    // SAFETY: from `load`.
    unsafe {
        let none = ptr::null_mut();
        assert_eq!(limbeck_predict_pair(model, ptr::null(), 0, ptr::null(), 1, none, none), -1);
        assert!(last_error().contains("the text is NULL"), "{}", last_error());
        limbeck_free(model);
    }
}

#[test]
fn threads_share_one_model() {
    struct Shared(*mut LimbeckModel);
    // SAFETY: what the header promises.
    unsafe impl Sync for Shared {}
    let model = Shared(load());
    let texts: Vec<String> = (0..12).map(|i| "un affable. ".repeat(i)).collect();
    let expected: Vec<_> = texts.iter().map(|text| predict(model.0, text.as_bytes())).collect();
    thread::scope(|scope| {
        for first in 0..4 {
            let (model, texts, expected) = (&model, &texts, &expected);
            scope.spawn(move || {
                for place in (0..200).map(|i| (first * 3 + i) % texts.len()) {
                    assert_eq!(predict(model.0, texts[place].as_bytes()), expected[place]);
                }
            });
        }
    });
    // SAFETY: all threads have ended.
    unsafe { limbeck_free(model.0) };
}

#[test]
fn what_fails_says_why_on_its_own_thread() {
    thread::scope(|scope| {
        scope.spawn(|| {
            assert_eq!(last_error(), "");
            // SAFETY: NULL or terminated.
            unsafe {
                assert!(limbeck_load(ptr::null()).is_null());
                assert!(last_error().contains("NULL"));
                assert!(limbeck_load(c"/nowhere/m.limbeck".as_ptr()).is_null());
                assert!(
                    last_error().contains("/nowhere/m.limbeck: there is no such model"),
                    "{}",
                    last_error()
                );
                assert_eq!((limbeck_labels(ptr::null()), limbeck_label(ptr::null(), 0)), (0, ptr::null()));
                assert_eq!(
                    limbeck_predict(ptr::null(), c"x".as_ptr(), 1, ptr::null_mut(), ptr::null_mut()),
                    -1
                );
                assert!(last_error().contains("model is NULL"));
            }
            let model = load();
            assert!(last_error().contains("model is NULL"), "a success forgets no error");
            assert_eq!(predict(model, b"bad \xff").0, -1);
            assert!(last_error().contains("not UTF-8"));
            // SAFETY: the text is NULL, which is looked at before.
            let label = unsafe { limbeck_predict(model, ptr::null(), 3, ptr::null_mut(), ptr::null_mut()) };
            assert_eq!((label, last_error().contains("text is NULL")), (-1, true));
            assert!(predict(model, b"un").0 >= 0, "and it goes on");
            // SAFETY: in use by nobody.
            unsafe { limbeck_free(model) };
        });
    });
    assert_eq!(last_error(), "", "the error of another thread");
}

#[test]
fn a_panic_is_an_error() {
    let answer = guarded(-1, || -> Result<i32, String> { panic!("on purpose\0") });
    assert_eq!(answer, -1);
    assert_eq!(last_error(), "a fault of limbeck, please report it: on purpose\u{fffd}");
}

#[test]
fn the_version_is_that_of_the_package() {
    // SAFETY: a constant.
    let version = unsafe { CStr::from_ptr(limbeck_version()) };
    assert_eq!(version.to_str(), Ok(env!("CARGO_PKG_VERSION")));
}
