//! Static scales of activations: what a product's input is clipped to, found on calibration texts.
//!
//! A session scales each row by its own largest magnitude. A static scale is one number for all rows, known beforehand:
//! nothing has to be looked for while running, and what few rows have need not set the step of all. Magnitudes are
//! counted in a histogram whose range doubles as larger ones come, so that memory does not grow with the texts.

use serde::Serialize;

/// How a static scale is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Calibration {
    /// The largest magnitude that was met.
    Max,
    /// What [`PERCENTILE`] of the magnitudes do not exceed.
    Percentile,
    /// What makes the sum of squared errors least, of rounding and clipping together.
    Mse,
}

impl Calibration {
    /// All of them.
    pub const ALL: [Calibration; 3] = [Calibration::Max, Calibration::Percentile, Calibration::Mse];
}

/// The fraction of magnitudes that [`Calibration::Percentile`] keeps.
pub const PERCENTILE: f64 = 0.9999;

/// Parts of a histogram. Of the widest, half may be empty.
const BINS: usize = 4096;

/// Parts between two clips that [`Calibration::Mse`] tries.
const STRIDE: usize = 8;

/// How often magnitudes of which size were met.
#[derive(Clone, Debug)]
pub struct Magnitudes {
    counts: Vec<u64>,
    /// Of a part; 0 before anything but zeros was met.
    width: f64,
    largest: f32,
}

impl Default for Magnitudes {
    fn default() -> Self {
        Magnitudes { counts: vec![0; BINS], width: 0.0, largest: 0.0 }
    }
}

impl Magnitudes {
    /// Counts some values, which must be finite.
    pub fn add(&mut self, values: &[f32]) {
        for value in values {
            let magnitude = value.abs();
            if magnitude > self.largest {
                self.largest = magnitude;
                self.widen(f64::from(magnitude));
            }
            // Zeros before the first value are in the first part, whatever its width.
            let part = if self.width == 0.0 { 0.0 } else { f64::from(magnitude) / self.width };
            self.counts[(part as usize).min(BINS - 1)] += 1;
        }
    }

    /// Makes the range reach a magnitude, by doubling.
    fn widen(&mut self, magnitude: f64) {
        if self.width == 0.0 {
            self.width = magnitude / BINS as f64;
        }
        while self.width * (BINS as f64) < magnitude {
            for part in 0..BINS / 2 {
                self.counts[part] = self.counts[2 * part] + self.counts[2 * part + 1];
            }
            self.counts[BINS / 2..].fill(0);
            self.width *= 2.0;
        }
    }

    /// What values are clipped to; 0 if there were none but zeros.
    pub fn clip(&self, how: Calibration) -> f32 {
        match how {
            Calibration::Max => self.largest,
            Calibration::Percentile => self.percentile(),
            Calibration::Mse => self.least_error(),
        }
    }

    fn percentile(&self) -> f32 {
        let all: u64 = self.counts.iter().sum();
        let mut below = 0;
        for (part, count) in self.counts.iter().enumerate() {
            below += count;
            if below as f64 >= PERCENTILE * all as f64 {
                return ((part + 1) as f64 * self.width).min(f64::from(self.largest)) as f32;
            }
        }
        self.largest
    }

    fn least_error(&self) -> f32 {
        let reach = (f64::from(self.largest) / self.width.max(f64::MIN_POSITIVE)).ceil() as usize;
        let clips = (STRIDE..reach).step_by(STRIDE).map(|parts| parts as f64 * self.width);
        let clips = clips.chain([f64::from(self.largest)]);
        let best = clips.map(|clip| (self.error(clip), clip)).min_by(|a, b| a.0.total_cmp(&b.0));
        best.map_or(self.largest, |(_, clip)| clip as f32)
    }

    /// The sum of squared errors with a clip, as far as parts can tell: that of the middle of each part, or, where steps are
    /// not much wider than parts, of rounding that is even over a step.
    fn error(&self, clip: f64) -> f64 {
        let step = clip / 127.0;
        let fine = step < 4.0 * self.width;
        let errors = self.counts.iter().enumerate().filter(|(_, count)| **count > 0).map(|(part, &count)| {
            let middle = (part as f64 + 0.5) * self.width;
            let error = match middle > clip {
                true => (middle - clip).powi(2),
                false if fine => step * step / 12.0,
                false => (middle - (middle / step).round() * step).powi(2),
            };
            count as f64 * error
        });
        errors.sum()
    }
}

/// Values rounded to int8 with one scale, `clip / 127`, and back.
pub fn round_to(clip: f32, values: &mut [f32]) {
    if clip < 127.0 * f32::MIN_POSITIVE {
        return values.fill(0.0);
    }
    let (factor, scale) = (127.0 / clip, clip / 127.0);
    values.iter_mut().for_each(|value| {
        *value = (*value * factor).round_ties_even().clamp(-127.0, 127.0) * scale;
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use limbeck_kernels::random::SplitMix64;

    /// Sums of twelve even numbers, which are nearly normal, and one outlier.
    fn values() -> Vec<f32> {
        let mut random = SplitMix64::new(7);
        let mut values: Vec<f32> =
            (0..40_000).map(|_| (0..12).map(|_| random.signed_unit() / 2.0).sum()).collect();
        values[17] = -80.0;
        values
    }

    fn error(clip: f32, values: &[f32]) -> f64 {
        let mut rounded = values.to_vec();
        round_to(clip, &mut rounded);
        values.iter().zip(&rounded).map(|(a, b)| f64::from(a - b).powi(2)).sum()
    }

    #[test]
    fn clips_are_those_of_the_sorted_values() {
        let values = values();
        let mut magnitudes = Magnitudes::default();
        values.chunks(333).for_each(|values| magnitudes.add(values));
        assert_eq!(magnitudes.clip(Calibration::Max), 80.0);
        let mut sorted: Vec<f32> = values.iter().map(|value| value.abs()).collect();
        sorted.sort_by(f32::total_cmp);
        let kept = sorted[(PERCENTILE * sorted.len() as f64).ceil() as usize - 1];
        let percentile = magnitudes.clip(Calibration::Percentile);
        // A part is at most 2·80 / 4096 wide.
        assert!((percentile - kept).abs() <= 0.04, "{percentile} {kept}");
        // No clip on a grid of the true errors is better than the chosen one by more than the parts' coarseness.
        let clip = magnitudes.clip(Calibration::Mse);
        let least = (1..400).map(|i| error(80.0 * i as f32 / 400.0, &values)).fold(f64::INFINITY, f64::min);
        assert!(error(clip, &values) <= 1.05 * least, "{clip}: {} {least}", error(clip, &values));
    }

    #[test]
    fn order_and_zeros_change_little() {
        let mut small_first = Magnitudes::default();
        small_first.add(&[0.0, 1e-6, 0.5, 1.0, 0.0]);
        assert_eq!(small_first.clip(Calibration::Max), 1.0);
        assert_eq!(small_first.counts.iter().sum::<u64>(), 5);
        let zeros = Magnitudes::default();
        assert!(Calibration::ALL.iter().all(|how| zeros.clip(*how) == 0.0));
        let mut values = [1.0, -2.0];
        round_to(0.0, &mut values);
        assert_eq!(values, [0.0, 0.0]);
    }

    #[test]
    fn rounding_is_that_of_a_scale() {
        let mut values = [0.3, -0.3, 5.0, -5.0, 1.0];
        round_to(1.27, &mut values);
        let expected = [0.3, -0.3, 1.27, -1.27, 1.0];
        assert!(values.iter().zip(expected).all(|(a, b)| (a - b).abs() <= 1e-6), "{values:?}");
    }
}
