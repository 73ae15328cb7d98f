//! From floats to few bits.

use super::{Form, INT4_GROUP, INT4_MAX, INT4_MAX_MULTIPLIER, groups_of, nibbles_of, unpack_row};

/// Rows in int8, each with its scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Int8Rows {
    /// `[rows, cols]`.
    pub bytes: Vec<i8>,
    /// `[rows]`.
    pub scale: Vec<f32>,
    /// Columns.
    pub cols: usize,
}

impl Int8Rows {
    /// Quantizes `[rows, cols]` values, each row by its own largest value.
    pub fn by_row(values: &[f32], rows: usize, cols: usize) -> Int8Rows {
        let scale = (0..rows).map(|row| scale_of(&values[row * cols..(row + 1) * cols])).collect();
        Int8Rows::with_scales(values, scale, cols)
    }

    fn with_scales(values: &[f32], scale: Vec<f32>, cols: usize) -> Int8Rows {
        let mut bytes = Vec::with_capacity(values.len());
        for (row, &scale) in values.chunks(cols.max(1)).zip(&scale) {
            bytes.extend(row.iter().map(|&value| rounded(value, scale, 127.0)));
        }
        Int8Rows { bytes, scale, cols }
    }

    /// The values that the bytes stand for: `[rows, cols]`.
    pub fn values(&self) -> impl Iterator<Item = f32> {
        let rows = self.bytes.chunks(self.cols.max(1)).zip(&self.scale);
        rows.flat_map(|(row, &scale)| row.iter().map(move |&byte| f32::from(byte) * scale))
    }

    /// `10·log₁₀(Σ w² / Σ (w − q·scale)²)` in decibels, w being the `values` that were quantized; infinite where nothing
    /// was lost.
    pub fn signal_to_noise(&self, values: &[f32]) -> f64 {
        let (mut signal, mut noise) = (0.0, 0.0);
        let rows = values.chunks(self.cols.max(1)).zip(self.bytes.chunks(self.cols.max(1)));
        for ((values, bytes), &scale) in rows.zip(&self.scale) {
            for (&value, &byte) in values.iter().zip(bytes) {
                let value = f64::from(value);
                signal += value * value;
                noise += (value - f64::from(byte) * f64::from(scale)).powi(2);
            }
        }
        if noise == 0.0 { f64::INFINITY } else { 10.0 * (signal / noise).log10() }
    }
}

/// How the rows of one matrix or table are rounded to what int8 can hold.
#[derive(Clone, Copy, Debug)]
pub struct RowRounding {
    form: Form,
    /// That of all rows, if they have one.
    scale: f32,
}

impl RowRounding {
    /// For a matrix or table of these values.
    ///
    /// # Panics
    /// If it is to stay in floats.
    pub fn new(form: Form, values: &[f32]) -> RowRounding {
        assert!(form.is_integer(), "floats are not rounded to whole numbers");
        RowRounding { form, scale: if form == Form::Int8Tensor { scale_of(values) } else { 1.0 } }
    }

    /// Rounds some of its rows, `[rows, cols]`.
    pub fn rows(&self, values: &[f32], rows: usize, cols: usize) -> Int8Rows {
        match self.form {
            Form::F32 | Form::F16 | Form::Bf16 | Form::Int8 => Int8Rows::by_row(values, rows, cols),
            Form::Int8Tensor => Int8Rows::with_scales(values, vec![self.scale; rows], cols),
            Form::Int4 => Int4Rows::by_row(values, rows, cols).unpack(),
        }
    }

    /// Rounds one of its rows.
    pub fn row(&self, values: &[f32]) -> Int8Rows {
        self.rows(values, 1, values.len())
    }
}

/// `value / scale` to the nearest whole number, ties to even, within `±most`.
fn rounded(value: f32, scale: f32, most: f32) -> i8 {
    // Beyond 2²³ floats are whole numbers: the addition rounds, in an instruction that every CPU has for many at once.
    const WHOLE: f32 = 1.5 * (1 << 23) as f32;
    (((value / scale).clamp(-most, most) + WHOLE) - WHOLE) as i8
}

/// The largest magnitude, as 127; 1 for a row of zeros, or of values too small for the division.
fn scale_of(values: &[f32]) -> f32 {
    normal(largest(values) / 127.0)
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0f32, |largest, value| largest.max(value.abs()))
}

fn normal(scale: f32) -> f32 {
    if scale.is_normal() { scale } else { 1.0 }
}

/// Rows in int4, as they are stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Int4Rows {
    /// `[rows, nibbles_of(cols)]`; [`unpack_row`] says in which order.
    pub nibbles: Vec<u8>,
    /// `[rows, groups_of(cols)]`.
    pub multipliers: Vec<u8>,
    /// `[rows]`.
    pub scale: Vec<f32>,
    /// Columns.
    pub cols: usize,
}

impl Int4Rows {
    /// Quantizes `[rows, cols]` values: the scale is such that the row's largest value can be reached, and each group has
    /// the multiplier with which the sum of its squared errors is least.
    pub fn by_row(values: &[f32], rows: usize, cols: usize) -> Int4Rows {
        let mut made = Int4Rows { nibbles: vec![], multipliers: vec![], scale: vec![], cols };
        for row in 0..rows {
            let row = &values[row * cols..(row + 1) * cols];
            let scale = normal(largest(row) / (f32::from(INT4_MAX) * f32::from(INT4_MAX_MULTIPLIER)));
            made.scale.push(scale);
            for group in row.chunks(INT4_GROUP) {
                let multiplier = best_multiplier(group, scale);
                made.multipliers.push(multiplier);
                made.nibbles.extend(nibbles(group, scale * f32::from(multiplier)));
            }
        }
        made
    }

    /// Unpacks the rows to int8.
    pub fn unpack(&self) -> Int8Rows {
        Int8Rows { bytes: self.times(&self.multipliers), scale: self.scale.clone(), cols: self.cols }
    }

    /// The int4 weights alone: `[rows, cols]`.
    pub fn weights(&self) -> Vec<i8> {
        self.times(&vec![1; self.multipliers.len()])
    }

    fn times(&self, multipliers: &[u8]) -> Vec<i8> {
        let (nibbles, groups) = (nibbles_of(self.cols), groups_of(self.cols));
        let mut bytes = vec![0; self.scale.len() * self.cols];
        for (row, out) in bytes.chunks_mut(self.cols.max(1)).enumerate() {
            let nibbles = &self.nibbles[row * nibbles..(row + 1) * nibbles];
            unpack_row(nibbles, &multipliers[row * groups..(row + 1) * groups], out);
        }
        bytes
    }
}

/// A group's weights as nibbles, in [`unpack_row`]'s order.
fn nibbles(group: &[f32], step: f32) -> [u8; INT4_GROUP / 2] {
    let mut nibbles = [0; INT4_GROUP / 2];
    for (place, &value) in group.iter().enumerate() {
        let nibble = nearest(value, step).cast_unsigned() & 15;
        nibbles[place % (INT4_GROUP / 2)] |= nibble << (4 * (place / (INT4_GROUP / 2)));
    }
    nibbles
}

/// The multiplier with the least error; of equal ones the smallest.
fn best_multiplier(group: &[f32], scale: f32) -> u8 {
    // The one that reaches the group's largest value. To cut that value off may pay for the others, but hardly by more than
    // three eighths; to go beyond never does.
    let reach = (largest(group) / (scale * f32::from(INT4_MAX)))
        .ceil()
        .clamp(1.0, f32::from(INT4_MAX_MULTIPLIER)) as u8;
    let mut best = (f32::INFINITY, reach);
    for multiplier in (5 * reach).div_ceil(8)..=reach {
        let error = squared_error(group, scale * f32::from(multiplier));
        if error < best.0 {
            best = (error, multiplier);
        }
    }
    best.1
}

fn squared_error(group: &[f32], step: f32) -> f32 {
    // Several sums, so that many values are added at once.
    let mut sums = [0.0; 8];
    for values in group.chunks(sums.len()) {
        for (sum, &value) in sums.iter_mut().zip(values) {
            let error = value - f32::from(nearest(value, step)) * step;
            *sum += error * error;
        }
    }
    sums.iter().sum()
}

fn nearest(value: f32, step: f32) -> i8 {
    rounded(value, step, f32::from(INT4_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_to_the_nearest_and_ties_to_even() {
        for value in [0.0, 0.5, 1.5, 2.5, -0.5, -1.5, 0.49999997, 126.5, 127.4, -126.6, 3.0, 500.0, -1e30] {
            let expected: f32 = f32::clamp(value, -127.0, 127.0);
            assert_eq!(rounded(value, 1.0, 127.0), expected.round_ties_even() as i8, "{value}");
        }
    }

    #[test]
    fn a_row_is_off_by_half_a_step_at_most() {
        let values: Vec<f32> = (0..96).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.013).collect();
        let rows = Int8Rows::by_row(&values, 4, 24);
        for (row, values) in values.chunks(24).enumerate() {
            let largest = largest(values);
            let quantized = &rows.bytes[row * 24..(row + 1) * 24];
            assert!(quantized.iter().any(|q| q.unsigned_abs() == 127), "the largest value fills the range");
            for (value, &q) in values.iter().zip(quantized) {
                let error = (f64::from(*value) - f64::from(q) * f64::from(rows.scale[row])).abs();
                assert!(error <= f64::from(largest) / 254.0 * (1.0 + 1e-5), "{error}");
            }
        }
        // A uniform error of half a step at most: Bennett's noise is step²/12.
        assert!(rows.signal_to_noise(&values) > 40.0);
    }

    #[test]
    fn zeros_stay_zero() {
        let rows = Int8Rows::by_row(&[0.0, 0.0, 1e-42, -1e-42], 2, 2);
        assert_eq!((rows.bytes, rows.scale), (vec![0; 4], vec![1.0; 2]));
        assert_eq!(Int8Rows::by_row(&[], 3, 0).scale, [1.0; 3]);
        let int4 = Int4Rows::by_row(&[0.0, 1e-42, 0.0, 0.0], 2, 2);
        assert_eq!(int4.unpack().bytes, [0; 4]);
        assert_eq!(Int4Rows::by_row(&[], 3, 0).unpack().scale, [1.0; 3]);
    }

    /// Values whose groups differ in size.
    fn values(rows: usize, cols: usize) -> Vec<f32> {
        (0..rows * cols).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.013 * (1 + i / 40 % 5) as f32).collect()
    }

    #[test]
    fn int4_is_int8_of_fifteen_values_a_group() {
        for (rows, cols) in [(3, 1), (2, 31), (4, 32), (5, 77), (2, 384)] {
            let values = values(rows, cols);
            let int4 = Int4Rows::by_row(&values, rows, cols);
            assert_eq!(int4.nibbles.len(), rows * nibbles_of(cols));
            assert_eq!(int4.multipliers.len(), rows * groups_of(cols));
            let int8 = int4.unpack();
            for row in 0..rows {
                let bytes = &int8.bytes[row * cols..(row + 1) * cols];
                for (group, bytes) in bytes.chunks(INT4_GROUP).enumerate() {
                    let multiplier = int4.multipliers[row * groups_of(cols) + group].cast_signed();
                    assert!((1..=INT4_MAX_MULTIPLIER.cast_signed()).contains(&multiplier));
                    assert!(bytes.iter().all(|q| q % multiplier == 0 && (q / multiplier).abs() <= INT4_MAX));
                    for (&q, value) in bytes.iter().zip(&values[row * cols + group * INT4_GROUP..]) {
                        // The nearest that the multiplier allows, but for what is cut off.
                        let step = int8.scale[row] * f32::from(multiplier);
                        let error = (value - f32::from(q) * int8.scale[row]).abs();
                        assert!(error <= 0.5001 * step || (q / multiplier).abs() == INT4_MAX, "{value} {q}");
                    }
                }
            }
            // 15 evenly spread values of ±max: Bennett's noise is (max/7)²/12, 18 dB below even values.
            assert!(int8.signal_to_noise(&values) > 17.0, "{}", int8.signal_to_noise(&values));
        }
    }

    #[test]
    fn no_multiplier_does_better() {
        let values = values(1, INT4_GROUP);
        let int4 = Int4Rows::by_row(&values, 1, INT4_GROUP);
        let error = |multiplier: u8| squared_error(&values, int4.scale[0] * f32::from(multiplier));
        let best = (INT4_MAX_MULTIPLIER / 2..=INT4_MAX_MULTIPLIER).map(error).fold(f32::INFINITY, f32::min);
        assert!(error(int4.multipliers[0]) <= best, "{:?}", int4.multipliers);
    }
}
