//! From values to places, and the values that are written at an axis.

/// How values are spread over an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Evenly.
    Linear,
    /// Equal ratios take equal room; values must be above 0.
    Logarithmic,
}

/// Fewer ticks than this are too few to read values by.
const FEW: usize = 3;

/// Room at both ends, as a share of the axis.
const MARGIN: f64 = 0.06;

/// An axis from one place of the picture to another.
pub(super) struct Axis {
    scale: Scale,
    /// Ends, in logarithms if the scale is logarithmic.
    low: f64,
    high: f64,
    begin: f64,
    end: f64,
}

impl Axis {
    /// An axis with room for all `values`.
    pub fn new(scale: Scale, values: impl Iterator<Item = f64>, begin: f64, end: f64) -> Axis {
        let spread = |value: f64| if scale == Scale::Logarithmic { value.ln() } else { value };
        let fold = |(low, high): (f64, f64), value: f64| (low.min(value), high.max(value));
        let ends = values.map(spread).filter(|value| value.is_finite()).fold((f64::MAX, f64::MIN), fold);
        let (low, high) = match ends {
            (low, high) if low > high => (0.0, 1.0),
            // A single value: half as much and twice as much, or one more and one less.
            (low, high) if high - low < 1e-9 => (low - 0.7, high + 0.7),
            ends => ends,
        };
        let margin = MARGIN * (high - low);
        Axis { scale, low: low - margin, high: high + margin, begin, end }
    }

    /// The place of a value.
    pub fn at(&self, value: f64) -> f64 {
        let value = if self.scale == Scale::Logarithmic { value.ln() } else { value };
        self.begin + (value - self.low) / (self.high - self.low) * (self.end - self.begin)
    }

    /// Round values within the axis, with how they are written.
    pub fn ticks(&self) -> Vec<(f64, String)> {
        match self.scale {
            Scale::Linear => even(self.low, self.high),
            Scale::Logarithmic => {
                let (low, high) = (self.low.exp(), self.high.exp());
                let steps: [&[f64]; 3] =
                    [&[1.0], &[1.0, 2.0, 5.0], &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]];
                let ticks = steps.map(|steps| within(steps, low, high));
                let enough = ticks.into_iter().find(|ticks| ticks.len() > FEW);
                enough.unwrap_or_else(|| even(low, high))
            }
        }
    }
}

/// Multiples of powers of ten.
fn within(steps: &[f64], low: f64, high: f64) -> Vec<(f64, String)> {
    let decades = low.log10().floor() as i32..=high.log10().ceil() as i32;
    let all = decades.flat_map(|decade| steps.iter().map(move |step| (step * 10_f64.powi(decade), decade)));
    let inside = all.filter(|(value, _)| (low..=high).contains(value));
    // 1.5 has a digit more than its decade.
    let digits = |value: f64, decade: i32| {
        let whole = (value / 10_f64.powi(decade)).fract() < 1e-6;
        (i32::from(!whole) - decade).max(0) as usize
    };
    inside.map(|(value, decade)| (value, format!("{value:.*}", digits(value, decade)))).collect()
}

/// Multiples of 1, 2 or 5 times a power of ten: four to ten of them.
fn even(low: f64, high: f64) -> Vec<(f64, String)> {
    let rough = (high - low) / 8.0;
    let decade = rough.log10().floor();
    let step =
        [1.0, 2.0, 5.0, 10.0].map(|step| step * 10_f64.powf(decade)).into_iter().find(|step| *step >= rough);
    let step = step.unwrap_or(rough);
    let digits = (-(step.log10() + 1e-9).floor()).max(0.0) as usize;
    let first = (low / step).ceil() as i64;
    let last = (high / step).floor() as i64;
    (first..=last).map(|tick| (tick as f64 * step, format!("{:.digits$}", tick as f64 * step))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<String> {
        axis.ticks().into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn ends_have_room_and_ratios_are_equal() {
        let axis = Axis::new(Scale::Logarithmic, [1.0, 100.0].into_iter(), 0.0, 100.0);
        let [one, ten, hundred] = [1.0, 10.0, 100.0].map(|value| axis.at(value));
        assert!((ten - one - (hundred - ten)).abs() <= 1e-9 && one > 0.0 && hundred < 100.0);
        assert_eq!(labels(&axis), ["1", "2", "5", "10", "20", "50", "100"]);
        let up = Axis::new(Scale::Linear, [88.0, 94.0].into_iter(), 400.0, 0.0);
        assert!(up.at(94.0) < up.at(88.0));
        assert_eq!(labels(&up), ["88", "89", "90", "91", "92", "93", "94"]);
    }

    #[test]
    fn narrow_and_wide_axes_have_a_few_ticks() {
        for (low, high) in
            [(16.0, 17.0), (0.0101, 0.0109), (1.0, 1e9), (0.3, 2.0), (5.0, 5.0), (120.0, 180.0)]
        {
            for scale in [Scale::Linear, Scale::Logarithmic] {
                let axis = Axis::new(scale, [low, high].into_iter(), 0.0, 1.0);
                let (ticks, labels) = (axis.ticks(), labels(&axis));
                assert!((3..=16).contains(&ticks.len()), "{low} to {high}, {scale:?}: {labels:?}");
                assert!(labels.windows(2).all(|pair| pair[0] != pair[1]), "{labels:?}");
                assert!(ticks.iter().all(|(value, label)| {
                    let written: f64 = label.parse().unwrap();
                    (0.0..=1.0).contains(&axis.at(*value)) && (written - value).abs() <= 1e-6 * value.abs()
                }));
            }
        }
    }
}
