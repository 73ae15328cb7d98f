//! The values that a sweep tries: lists, and draws from ranges.

use crate::stages::recipe::check::number;
use crate::{Error, Result, files};
use toml::{Table, Value};

/// A key and one of its values.
type Pair = (String, Value);

/// More draws would be a slip of the hand.
const MOST_DRAWS: usize = 10_000;

/// The keys of `[sweep.grid]` with their values, in alphabetical order.
pub(super) fn grid(table: &Table) -> Result<Vec<(String, Vec<Value>)>> {
    let leaf = |value: &Value| !value.is_table();
    leaves("", table, &leaf)?
        .into_iter()
        .map(|(key, value)| match value {
            Value::Array(values) if !values.is_empty() => Ok((key, values)),
            Value::Array(_) => Err(Error::setting(
                format!("sweep.grid.{key}"),
                "is an empty list of values",
                "name one or more, or leave the key out",
            )),
            other => {
                let mend = format!("a list of values, as [{other}]");
                Err(Error::setting(format!("sweep.grid.{key}"), "is no list of values", mend))
            }
        })
        .collect()
}

/// The draws of `[sweep.random]`: each a value for each key.
pub(super) fn random(table: &Table, trials: usize, seed: u64) -> Result<Vec<Vec<Pair>>> {
    let leaf = |value: &Value| value.as_table().is_none_or(|table| table.contains_key("low"));
    let ranges: Vec<(String, Range)> = leaves("", table, &leaf)?
        .into_iter()
        .map(|(key, value)| Range::read(&key, value).map(|range| (key, range)))
        .collect::<Result<_>>()?;
    match (ranges.is_empty(), trials) {
        (true, 0) => return Ok(Vec::new()),
        (true, _) => {
            let problem = format!("is {trials}, and [sweep.random] has no key to draw");
            return Err(Error::setting("sweep.trials", problem, "leave it out: the grid is tried whole"));
        }
        (false, 0) => {
            let problem = "is 0, and [sweep.random] waits to be drawn";
            return Err(Error::setting("sweep.trials", problem, "how many draws, as 20"));
        }
        (false, 1..=MOST_DRAWS) => {}
        (false, _) => {
            let mend = format!("a whole number from 1 to {MOST_DRAWS}");
            return Err(Error::setting("sweep.trials", format!("is {trials}"), mend));
        }
    }
    let draw = |number: usize| {
        let pair = |(key, range): &(String, Range)| (key.clone(), range.at(unit(seed, key, number)));
        ranges.iter().map(pair).collect()
    };
    Ok((0..trials).map(draw).collect())
}

/// Values under their dotted keys, whether the dots were quoted or made tables.
fn leaves(prefix: &str, table: &Table, leaf: &dyn Fn(&Value) -> bool) -> Result<Vec<Pair>> {
    let mut found = Vec::new();
    for (key, value) in table {
        let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            Value::Table(inner) if !leaf(value) => found.extend(leaves(&key, inner, leaf)?),
            value => found.push((key, value.clone())),
        }
    }
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    match found.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some(twice) => Err(Error::setting(format!("sweep: {}", twice[0].0), "is given twice", "choose one")),
        None => Ok(found),
    }
}

/// Uniform from 0 to less than 1, a function of its arguments alone.
fn unit(seed: u64, key: &str, number: usize) -> f64 {
    let hash = files::sha256(format!("draw {number} of {key}, seed {seed}").as_bytes());
    let bits = u64::from_str_radix(&hash[..13], 16).expect("hexadecimal digits");
    bits as f64 / (1_u64 << 52) as f64
}

/// What is drawn from.
enum Range {
    Choice(Vec<Value>),
    Whole { low: i64, high: i64 },
    Linear { low: f64, high: f64 },
    Logarithmic { low: f64, high: f64 },
}

impl Range {
    fn read(key: &str, value: Value) -> Result<Range> {
        let refuse =
            |problem: String, mend: &str| Err(Error::setting(format!("sweep.random.{key}"), problem, mend));
        let form = "a list to choose from, or { low = …, high = …, scale = \"linear\" or \"log\" }";
        let range = match value {
            Value::Array(values) if !values.is_empty() => return Ok(Range::Choice(values)),
            Value::Table(range) => range,
            other => return refuse(format!("is {other}"), form),
        };
        if let Some(stray) = range.keys().find(|key| !["low", "high", "scale"].contains(&key.as_str())) {
            return refuse(format!("there is no key {stray} in a range"), form);
        }
        let logarithmic = match range.get("scale").map(|scale| scale.as_str().unwrap_or("no text")) {
            None | Some("linear") => false,
            Some("log") => true,
            Some(other) => return refuse(format!("its scale is {other:?}"), "\"linear\" or \"log\""),
        };
        let (low, high) = (range.get("low"), range.get("high"));
        let (Some(low), Some(high)) = (low, high) else { return refuse("lacks an end".to_owned(), form) };
        if let (Value::Integer(low), Value::Integer(high), false) = (low, high, logarithmic) {
            return match low < high {
                true => Ok(Range::Whole { low: *low, high: *high }),
                false => refuse(format!("goes from {low} to {high}"), "low must be less than high"),
            };
        }
        let float = |value: &Value| value.as_float().or(value.as_integer().map(|whole| whole as f64));
        let (Some(low), Some(high)) = (float(low), float(high)) else {
            return refuse("an end is no number".to_owned(), form);
        };
        if !(low < high && low.is_finite() && high.is_finite()) {
            return refuse(format!("goes from {low} to {high}"), "low must be less than high");
        }
        match logarithmic {
            true if low <= 0.0 => refuse(format!("begins at {low}"), "a logarithmic range begins above 0"),
            true => Ok(Range::Logarithmic { low, high }),
            false => Ok(Range::Linear { low, high }),
        }
    }

    /// The value at `unit` of the way, from 0 to less than 1.
    fn at(&self, unit: f64) -> Value {
        match self {
            Range::Choice(values) => values[(unit * values.len() as f64) as usize].clone(),
            Range::Whole { low, high } => {
                let count = i128::from(*high) - i128::from(*low) + 1;
                Value::Integer(
                    (i128::from(*low) + (unit * count as f64) as i128).min(i128::from(*high)) as i64
                )
            }
            Range::Linear { low, high } => Value::Float(rounded(low + unit * (high - low), *low, *high)),
            Range::Logarithmic { low, high } => {
                let value = (low.ln() + unit * (high.ln() - low.ln())).exp();
                Value::Float(rounded(value, *low, *high))
            }
        }
    }
}

/// To three significant digits, which a name can hold; within the range.
fn rounded(value: f64, low: f64, high: f64) -> f64 {
    let short: f64 = format!("{value:.2e}").parse().expect("a number that was just printed");
    short.clamp(low, high)
}

/// A value as it stands in names: numbers as one would type them, lists as `16x4`.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::Float(value) => number(*value),
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join("x"),
        other => other.to_string(),
    }
}
