//! JSON, read into a tree that borrows from its text: the headers of safetensors files, and `config.json`.
//!
//! Of our own because a general reader is 50 KB of an inference binary, and because members keep their order and their
//! repetitions: of a name that stands there twice a map would keep one.

use std::borrow::Cow;
use std::fmt;

/// Values inside of values, at most: a tree is read and dropped by recursion.
const DEPTH: usize = 100;

/// One value.
#[derive(Debug, PartialEq)]
pub(crate) enum Json<'a> {
    Null,
    Bool(bool),
    /// As it is written.
    Number(&'a str),
    Text(Cow<'a, str>),
    List(Vec<Json<'a>>),
    Object(Vec<(Cow<'a, str>, Json<'a>)>),
}

impl<'a> Json<'a> {
    /// Reads a text that is one value.
    ///
    /// # Errors
    /// A sentence with line and column.
    pub fn parse(text: &'a str) -> Result<Json<'a>, String> {
        let mut reader = Reader { text, at: 0 };
        let value = reader.value(DEPTH).and_then(|value| match reader.next() {
            None => Ok(value),
            Some(_) => Err("there is more behind the end"),
        });
        value.map_err(|problem| {
            let before = &text.as_bytes()[..reader.at.min(text.len())];
            let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
            let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
            format!("{problem} at line {line}, column {column}")
        })
    }

    /// The member of an object; of several the last. `None` for what is no object.
    pub fn get(&self, name: &str) -> Option<&Json<'a>> {
        let Json::Object(members) = self else { return None };
        members.iter().rfind(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// A text.
    pub fn text(&self) -> Option<&str> {
        if let Json::Text(text) = self { Some(text) } else { None }
    }

    /// A whole number from 0 on.
    pub fn size(&self) -> Option<usize> {
        if let Json::Number(number) = self { number.parse().ok() } else { None }
    }

    /// A list of which `each` reads every value.
    pub fn list<'s, T>(&'s self, each: impl Fn(&'s Json<'a>) -> Option<T>) -> Option<Vec<T>> {
        if let Json::List(values) = self { values.iter().map(each).collect() } else { None }
    }

    /// A number: of up to 15 digits and a power of ten within 22 exactly rounded, else to within ten units in the last
    /// of its 53 bits, a half for each multiplication. What a configuration holds is of the first kind; the tables of the
    /// standard library's reader, which is always exact, are 10 KiB. `None` if it is too large.
    pub fn number(&self) -> Option<f64> {
        /// The powers of ten that are exact.
        const POWERS: [f64; 23] = [
            1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17,
            1e18, 1e19, 1e20, 1e21, 1e22,
        ];
        let Json::Number(text) = self else { return None };
        let (digits, power) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        // What is too long for an i32 overflows or vanishes either way.
        let far = if power.starts_with('-') { i32::MIN / 2 } else { i32::MAX / 2 };
        let mut power = power.parse().unwrap_or(far);
        let (mut mantissa, mut fraction) = (0_u64, false);
        for digit in digits.bytes() {
            match digit {
                b'0'..=b'9' if mantissa < u64::MAX / 16 => {
                    mantissa = mantissa * 10 + u64::from(digit - b'0');
                    power = power.saturating_sub(i32::from(fraction));
                }
                b'0'..=b'9' => power = power.saturating_add(i32::from(!fraction)),
                _ => fraction |= digit == b'.',
            }
        }
        let mut value = mantissa as f64;
        let mut power = power.clamp(-400, 400);
        while power != 0 {
            let step = power.clamp(-22, 22);
            let factor = POWERS[step.unsigned_abs() as usize];
            value = if step < 0 { value / factor } else { value * factor };
            power -= step;
        }
        value.is_finite().then_some(if digits.starts_with('-') { -value } else { value })
    }
}

/// For errors: short, so lists and objects are only named.
impl fmt::Display for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Json::Null => f.write_str("null"),
            Json::Bool(value) => value.fmt(f),
            Json::Number(number) => f.write_str(number),
            Json::Text(text) => write!(f, "{text:?}"),
            Json::List(_) => f.write_str("a list"),
            Json::Object(_) => f.write_str("an object"),
        }
    }
}

/// A text, and how far it has been read.
struct Reader<'a> {
    text: &'a str,
    at: usize,
}

type Read<T> = Result<T, &'static str>;

impl<'a> Reader<'a> {
    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The first byte behind white space.
    fn next(&mut self) -> Option<u8> {
        while matches!(self.byte(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        self.byte()
    }

    /// Passes `expected`, if it comes next.
    fn passes(&mut self, expected: u8) -> bool {
        let found = self.next() == Some(expected);
        self.at += usize::from(found);
        found
    }

    fn value(&mut self, depth: usize) -> Read<Json<'a>> {
        let depth = depth.checked_sub(1).ok_or("values lie too deep inside of each other")?;
        match self.next() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.list(depth),
            Some(b'"') => Ok(Json::Text(self.string()?)),
            Some(b'-' | b'0'..=b'9') => self.number(),
            None => Err("the text ends where a value should be"),
            Some(_) => {
                let words = [("null", Json::Null), ("true", Json::Bool(true)), ("false", Json::Bool(false))];
                let rest = &self.text.as_bytes()[self.at..];
                let found = words.into_iter().find(|(word, _)| rest.starts_with(word.as_bytes()));
                let (word, value) = found.ok_or("this is no value")?;
                self.at += word.len();
                Ok(value)
            }
        }
    }

    fn object(&mut self, depth: usize) -> Read<Json<'a>> {
        self.at += 1;
        let mut members = Vec::new();
        if self.passes(b'}') {
            return Ok(Json::Object(members));
        }
        loop {
            if self.next() != Some(b'"') {
                return Err("a name in quotes should be here");
            }
            let name = self.string()?;
            if !self.passes(b':') {
                return Err("a colon should be here");
            }
            members.push((name, self.value(depth)?));
            if self.passes(b'}') {
                return Ok(Json::Object(members));
            }
            if !self.passes(b',') {
                return Err("a comma or the end of the object should be here");
            }
        }
    }

    fn list(&mut self, depth: usize) -> Read<Json<'a>> {
        self.at += 1;
        let mut values = Vec::new();
        if self.passes(b']') {
            return Ok(Json::List(values));
        }
        loop {
            values.push(self.value(depth)?);
            if self.passes(b']') {
                return Ok(Json::List(values));
            }
            if !self.passes(b',') {
                return Err("a comma or the end of the list should be here");
            }
        }
    }

    fn number(&mut self) -> Read<Json<'a>> {
        let start = self.at;
        self.at += usize::from(self.byte() == Some(b'-'));
        let first = self.byte();
        let whole = self.digits()?;
        if whole > 1 && first == Some(b'0') {
            return Err("a number begins with a needless 0");
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.byte(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.byte(), Some(b'+' | b'-')));
            self.digits()?;
        }
        Ok(Json::Number(&self.text[start..self.at]))
    }

    /// Passes digits, one at least, and says how many.
    fn digits(&mut self) -> Read<usize> {
        let start = self.at;
        while self.byte().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == start { Err("a digit should be here") } else { Ok(self.at - start) }
    }

    fn string(&mut self) -> Read<Cow<'a, str>> {
        self.at += 1;
        let mut whole = Cow::Borrowed("");
        loop {
            let start = self.at;
            while !matches!(self.byte(), None | Some(b'"' | b'\\' | 0..0x20)) {
                self.at += 1;
            }
            let part = &self.text[start..self.at];
            if whole.is_empty() {
                whole = Cow::Borrowed(part);
            } else {
                whole.to_mut().push_str(part);
            }
            match self.byte() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(whole);
                }
                Some(b'\\') => {
                    self.at += 1;
                    let escaped = self.escaped()?;
                    whole.to_mut().push(escaped);
                }
                None => return Err("the text ends inside of quotes"),
                Some(_) => return Err("a control character stands inside of quotes"),
            }
        }
    }

    /// What is behind a backslash.
    fn escaped(&mut self) -> Read<char> {
        let kind = self.byte().ok_or("the text ends inside of quotes")?;
        let at = b"\"\\/bfnrt".iter().position(|known| *known == kind);
        if let Some(at) = at {
            self.at += 1;
            return Ok(['"', '\\', '/', '\u{8}', '\u{c}', '\n', '\r', '\t'][at]);
        }
        if kind != b'u' {
            return Err("there is no such escape");
        }
        let first = self.unit()?;
        let code = if (0xd800..0xdc00).contains(&first) {
            let second = if self.byte() == Some(b'\\') {
                self.at += 1;
                self.unit()?
            } else {
                0
            };
            match second.checked_sub(0xdc00) {
                Some(low) if low < 0x400 => 0x1_0000 + ((first - 0xd800) << 10) + low,
                _ => return Err("half of a surrogate pair is missing"),
            }
        } else {
            first
        };
        char::from_u32(code).ok_or("half of a surrogate pair is missing")
    }

    /// `u` and four hexadecimal digits.
    fn unit(&mut self) -> Read<u32> {
        let digits = self.text.as_bytes().get(self.at..self.at + 5).filter(|digits| digits[0] == b'u');
        let digits = digits.ok_or("\\u and four digits should be here")?;
        let mut unit = 0;
        for digit in &digits[1..] {
            let value = char::from(*digit).to_digit(16).ok_or("\\u and four digits should be here")?;
            unit = unit << 4 | value;
        }
        self.at += 5;
        Ok(unit)
    }
}

#[cfg(test)]
mod tests;
