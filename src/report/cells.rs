//! How figures are written in tables: one way for each kind, whatever table it is, and columns that line up.

/// Lines of cells as text: the first line is the heading, ruled off; all but the first column stand to the
/// right; every line ends in a newline.
pub fn aligned<const N: usize>(lines: &[[String; N]]) -> String {
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let rule = widths.map(|width| "─".repeat(width)).join("  ");
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        let cells = line.iter().zip(widths).enumerate().map(|(column, (cell, width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        text.push_str(&cells.collect::<Vec<_>>().join("  "));
        text.push('\n');
        if number == 0 {
            text.push_str(&rule);
            text.push('\n');
        }
    }
    text
}

/// The same lines in Markdown.
pub fn markdown<const N: usize>(lines: &[[String; N]]) -> String {
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        text += &format!("| {} |\n", line.join(" | "));
        if number == 0 {
            text += &format!("|---{}|\n", "|--:".repeat(N - 1));
        }
    }
    text
}

/// What was measured, or a dash.
pub fn dash<T>(value: Option<T>, write: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "–".to_owned(), write)
}

/// A fraction in per cent, as `93.57`.
pub fn percent(fraction: f64) -> String {
    format!("{:.2}", 100.0 * fraction)
}

/// A fraction in per cent, with its unit, as `59.8 %`.
pub fn share(fraction: f64) -> String {
    format!("{:.1} %", 100.0 * fraction)
}

/// A fraction by which something is more, in per cent, as `+1.8 %`.
pub fn more(fraction: f64) -> String {
    format!("{:+.1} %", 100.0 * fraction)
}

/// A difference of fractions, in points, as `-0.11`.
pub fn points(difference: f64) -> String {
    format!("{:+.2}", 100.0 * difference)
}

/// An accuracy and its interval, in per cent: `93.57 (92.99–94.10)`.
pub fn accuracy(fraction: f64, low: f64, high: f64) -> String {
    format!("{} ({}–{})", percent(fraction), percent(low), percent(high))
}

/// `p = 0.0312`; one too small for four digits is said to be so.
pub fn p_value(p: f64) -> String {
    if p < 0.0001 { "p < 0.0001".into() } else { format!("p = {p:.4}") }
}

/// Bytes in MiB, as `14.50`.
pub fn mib(bytes: f64) -> String {
    format!("{:.2}", bytes / f64::from(1 << 20))
}

/// A ratio, as `5.82×`.
pub fn times(ratio: f64) -> String {
    format!("{ratio:.2}×")
}

/// Milliseconds to three significant digits, as `0.0123`, `1.23` or `123`; whole ones from there on.
pub fn milliseconds(ms: f64) -> String {
    // Rounded first, so that 9.999 is 10.0 and not 10.00.
    let rounded = format!("{ms:.2e}");
    let exponent = rounded.rsplit_once('e').and_then(|(_, exponent)| exponent.parse::<i32>().ok());
    let decimals = exponent.map_or(0, |exponent| (2 - exponent).clamp(0, 9) as usize);
    format!("{ms:.decimals$}")
}

/// `1234567` as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_significant_digits() {
        let times = [0.012_34, 0.000_999_6, 0.123_4, 1.234, 9.999, 12.34, 123.4, 1234.5, 0.0];
        let texts = ["0.0123", "0.00100", "0.123", "1.23", "10.0", "12.3", "123", "1234", "0.00"];
        assert_eq!(times.map(milliseconds), texts);
    }

    #[test]
    fn large_numbers_are_grouped() {
        assert_eq!([0, 999, 1000, 66_955_010].map(grouped), ["0", "999", "1,000", "66,955,010"]);
    }

    #[test]
    fn fractions_are_per_cent_and_differences_have_a_sign() {
        assert_eq!(accuracy(0.93566, 0.92988, 0.94098), "93.57 (92.99–94.10)");
        assert_eq!([points(-0.0011), points(0.0), share(0.5984)], ["-0.11", "+0.00", "59.8 %"]);
        assert_eq!([mib(15_204_352.0), times(5.824), dash(None, times)], ["14.50", "5.82×", "–"]);
    }
}
