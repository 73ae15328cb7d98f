//! Compared with serde_json: the same texts are read, to the same values.

use super::Json;
use proptest::prelude::*;
use serde_json::Value;

/// Whether ours is serde_json's value. Its maps keep the last of equal names, as `get` does.
fn same(ours: &Json<'_>, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Json::Null, Value::Null) => true,
        (Json::Bool(a), Value::Bool(b)) => a == b,
        (Json::Number(_), Value::Number(b)) => {
            let (a, b) = (ours.number().unwrap(), b.as_f64().unwrap());
            let near = (a - b).abs() <= 10.0 * f64::EPSILON * b.abs() || b.abs() < 1e-300;
            near && ours.size().is_none_or(|size| theirs.as_u64() == Some(size as u64))
        }
        (Json::Text(a), Value::String(b)) => a == b,
        (Json::List(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Json::Object(a), Value::Object(b)) => {
            a.iter().all(|(name, _)| b.contains_key(&**name))
                && b.iter().all(|(name, b)| same(ours.get(name).unwrap(), b))
        }
        _ => false,
    }
}

/// Both read it, to the same value, or neither does.
fn agree(text: &str) {
    match (Json::parse(text), serde_json::from_str::<Value>(text)) {
        (Ok(ours), Ok(theirs)) => assert!(same(&ours, &theirs), "{text}: {ours:?}, {theirs:?}"),
        (Err(_), Err(_)) => {}
        // Too large for an f64: an error there, and here where it is asked for.
        (Ok(_), Err(theirs)) if theirs.to_string().contains("number out of range") => {}
        (ours, theirs) => panic!("{text:?}: {ours:?}, {theirs:?}"),
    }
}

#[test]
fn whatever_is_json_is_read_and_nothing_else() {
    for text in [
        "",
        " ",
        "null",
        "nul",
        "true",
        "false ",
        "falsy",
        "0",
        "-0",
        "00",
        "01",
        "-",
        "1.",
        ".5",
        "1.5e",
        "1e+2",
        "1E-2",
        "-12.50",
        "1e400",
        "1e-400",
        "[]",
        "[1,]",
        "[,1]",
        "[1 2]",
        "[1, [2, []]]",
        "{}",
        "{\"a\":1}",
        "{\"a\":1,}",
        "{\"a\" 1}",
        "{a:1}",
        "{\"a\":1,\"a\":2}",
        "[1]]",
        "[1",
        "{\"a\":",
        "\"",
        "\"a",
        "\"\\",
        "\"\\n\\t\\\"\\\\\\/\"",
        "\"\\x\"",
        "\"\\u00e4\"",
        "\"\\u00e\"",
        "\"\\ud83c\\udf78\"",
        "\"\\ud83c\"",
        "\"\\udf78\"",
        "\"\\ud83c\\u0041\"",
        "\"\\ud83cx\"",
        "\"a\nb\"",
        "\"a\u{7f}\u{e4}\\n\u{1f378}\"",
        "\u{feff}1",
        "\u{a0}1",
        "1\u{b}",
    ] {
        agree(text);
    }
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert!(Json::parse(&nested(100)).is_ok() && Json::parse(&nested(101)).is_err());
    assert!(Json::parse(&"[".repeat(1 << 20)).is_err());
    assert_eq!(Json::parse("[1,\n  x]").unwrap_err(), "this is no value at line 2, column 3");
}

#[test]
fn numbers_of_a_configuration_are_exact() {
    for text in ["0.1", "1e-12", "1e-05", "0.02", "0.30000001", "12345678.9", "1e22", "5e-7"] {
        assert_eq!(Json::parse(text).unwrap().number(), text.parse().ok(), "{text}");
    }
    // Beyond the powers that are exact, but the f32 that it stands for.
    let largest = Json::parse("3.4028235e38").unwrap().number().unwrap();
    assert_eq!(largest as f32, f32::MAX);
    let sizes = ["7", "-1", "1.0", "1e2", "18446744073709551615", "18446744073709551616"];
    let sizes = sizes.map(|text| Json::parse(text).unwrap().size());
    assert_eq!(sizes, [Some(7), None, None, None, Some(u64::MAX as usize), None]);
    assert_eq!(Json::parse("1e400").unwrap().number(), None);
    assert_eq!(Json::parse("1e-99999999999").unwrap().number(), Some(0.0));
}

proptest! {
    #[test]
    fn texts_of_its_characters_are_read_alike(text in "[\\[\\]{}:,\"\\\\ 0-9eE.+\\-anulftrsu\u{e4}\n]{0,24}") {
        agree(&text);
    }

    #[test]
    fn numbers_are_read_alike(text in "-?[0-9]{1,25}(\\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?") {
        agree(&text);
    }

    #[test]
    fn any_f32_comes_back(bits in any::<u32>()) {
        let value = f32::from_bits(bits);
        prop_assume!(value.is_finite() && value != 0.0);
        let text = format!("{value:e}");
        let read = Json::parse(&text).unwrap().number().unwrap();
        // A few units of an f64's last bit round to the next f32 only at the edge between two.
        assert!((read as f32).to_bits().abs_diff(bits) <= 1, "{read:e} for {text}");
    }

    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        agree(&text);
    }
}
