//! How good a classifier is, and how sure one may be of it.
//!
//! Counts are gathered text by text ([`Confusion`], [`Paired`]), so memory does not grow with the data.
//!
//! An accuracy over n texts is a binomial proportion; its interval is Wilson's, which keeps its coverage
//! near 100 %, where classifiers live and the normal approximation fails. Two classifiers on the same
//! texts are compared with McNemar's test on the texts where exactly one is right: far sharper than
//! comparing two intervals, because the texts that both get right or wrong say nothing about the
//! difference. The exact binomial form is used, two-sided, without the mid-p correction: it never claims
//! more than it knows, and is valid for any count.

/// The 97.5 % quantile of the normal distribution, for two-sided 95 % intervals.
const Z_95: f64 = 1.959_963_984_540_054;

/// Whether an accuracy that lies so many points below another is further below than is allowed. Accuracies are fractions of
/// texts: a drop of exactly what is allowed is allowed, whichever way its binary digits were rounded.
pub fn exceeds(points: f64, allowed: f64) -> bool {
    points > allowed + 1e-7
}

/// An interval of fractions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Wilson's 95 % score interval (Wilson, 1927) of `successes` out of `trials`: all proportions p with
/// `|p̂ - p| ≤ z √(p (1 - p) / n)`. No trials: from 0 to 1.
pub fn wilson(successes: u64, trials: u64) -> Interval {
    if trials == 0 {
        return Interval { low: 0.0, high: 1.0 };
    }
    let (n, z2) = (trials as f64, Z_95 * Z_95);
    let rate = successes as f64 / n;
    let centre = (rate + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let reach = Z_95 / (1.0 + z2 / n) * (rate * (1.0 - rate) / n + z2 / (4.0 * n * n)).sqrt();
    Interval {
        low: if successes == 0 { 0.0 } else { centre - reach },
        high: if successes == trials { 1.0 } else { centre + reach },
    }
}

/// McNemar's exact two-sided test (McNemar, 1947), from the counts of texts that only the first and only
/// the second classifier gets right: the probability of a split at least so uneven if each such text
/// were a fair coin, `min(1, 2 · P[Binomial(n, ½) ≤ min(a, b)])`. No such text: 1.
pub fn mcnemar(only_first: u64, only_second: u64) -> f64 {
    let n = only_first + only_second;
    let fewer = only_first.min(only_second);
    if 2 * fewer >= n {
        return 1.0;
    }
    // The largest term in logarithms, since 2^-n underflows; the rest by the ratio of neighbours.
    let log_choose: f64 = (1..=fewer).map(|k| ((n - fewer + k) as f64 / k as f64).ln()).sum();
    let largest = (log_choose - n as f64 * std::f64::consts::LN_2).exp();
    let (mut term, mut sum) = (1.0, 1.0);
    for k in (1..=fewer).rev() {
        term *= k as f64 / (n - k + 1) as f64;
        sum += term;
    }
    (2.0 * largest * sum).min(1.0)
}

/// The mean of measurements; 0 of none.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The mean of measurements, and its 95 % interval by Student's t (1908), `mean ± t · s / √n` with n - 1 degrees of
/// freedom: what repetition with other seeds says of a figure. `None` for fewer than two, which say nothing of it.
pub fn student(values: &[f64]) -> Option<(f64, Interval)> {
    let n = values.len();
    if n < 2 {
        return None;
    }
    let mean = mean(values);
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1) as f64;
    let reach = t_95(n - 1) * (variance / n as f64).sqrt();
    Some((mean, Interval { low: mean - reach, high: mean + reach }))
}

/// Student's interval of fractions, as [`student`]: one that reaches beyond 0 or 1 ends there.
pub fn student_of_fractions(values: &[f64]) -> Option<Interval> {
    let (_, Interval { low, high }) = student(values)?;
    Some(Interval { low: low.max(0.0), high: high.min(1.0) })
}

/// The 97.5 % quantile of Student's t, found by halving; `degrees` is 1 or more.
fn t_95(degrees: usize) -> f64 {
    let (mut low, mut high) = (0.0_f64, 16.0_f64);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        *(if t_within(middle, degrees) < 0.95 { &mut low } else { &mut high }) = middle;
    }
    (low + high) / 2.0
}

/// The probability that Student's t lies between -t and t: the finite sums for whole degrees of freedom (Abramowitz
/// and Stegun, 26.7.3 and 26.7.4).
fn t_within(t: f64, degrees: usize) -> f64 {
    let angle = (t / (degrees as f64).sqrt()).atan();
    let (sine, cosine) = angle.sin_cos();
    let odd = degrees % 2;
    let (mut term, mut sum) = (if odd == 1 { cosine } else { 1.0 }, 0.0);
    for k in (2 + odd..=degrees).step_by(2) {
        sum += term;
        term *= cosine * cosine * (k - 1) as f64 / k as f64;
    }
    match odd {
        1 => std::f64::consts::FRAC_2_PI * (angle + sine * sum),
        _ => sine * sum,
    }
}

/// How often each class was taken for each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confusion {
    classes: usize,
    /// `[label][predicted]`, row-major.
    counts: Vec<u64>,
}

impl Confusion {
    /// Nothing counted yet, for labels and predictions below `classes`.
    pub fn new(classes: usize) -> Confusion {
        Confusion { classes, counts: vec![0; classes * classes] }
    }

    /// Counts one text. Panics if either is not below the number of classes.
    pub fn record(&mut self, label: usize, predicted: usize) {
        assert!(label < self.classes && predicted < self.classes, "class out of range");
        self.counts[label * self.classes + predicted] += 1;
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Texts of class `label` that were taken for `predicted`.
    pub fn count(&self, label: usize, predicted: usize) -> u64 {
        self.counts[label * self.classes + predicted]
    }

    /// Texts counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Texts whose class was found.
    pub fn correct(&self) -> u64 {
        (0..self.classes).map(|class| self.count(class, class)).sum()
    }

    /// Fraction of texts whose class was found; 0 of none.
    pub fn accuracy(&self) -> f64 {
        self.correct() as f64 / self.total().max(1) as f64
    }

    /// Wilson's 95 % interval of the accuracy.
    pub fn interval(&self) -> Interval {
        wilson(self.correct(), self.total())
    }

    /// Mean over the classes of `2 · tp / (2 · tp + fp + fn)`, over classes that occur as a label or as a
    /// prediction (scikit-learn's convention).
    pub fn macro_f1(&self) -> f64 {
        let (mut sum, mut occurring) = (0.0, 0u32);
        for class in 0..self.classes {
            let labelled: u64 = (0..self.classes).map(|other| self.count(class, other)).sum();
            let predicted: u64 = (0..self.classes).map(|other| self.count(other, class)).sum();
            if labelled + predicted > 0 {
                sum += 2.0 * self.count(class, class) as f64 / (labelled + predicted) as f64;
                occurring += 1;
            }
        }
        sum / f64::from(occurring.max(1))
    }
}

/// Where two classifiers, shown the same texts, differ in being right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Paired {
    /// Texts that only the first gets right.
    pub only_first: u64,
    /// Texts that only the second gets right.
    pub only_second: u64,
}

impl Paired {
    /// Counts one text.
    pub fn record(&mut self, first_is_right: bool, second_is_right: bool) {
        self.only_first += u64::from(first_is_right && !second_is_right);
        self.only_second += u64::from(second_is_right && !first_is_right);
    }

    /// [`mcnemar`] of the counts.
    pub fn p_value(self) -> f64 {
        mcnemar(self.only_first, self.only_second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, expected: f64, relative: f64) {
        let error = (found - expected).abs();
        assert!(error <= relative * expected.abs(), "{found} is not {expected} (relative {relative})");
    }

    /// Newcombe, Statistics in Medicine 17 (1998), table I, method 3 (four digits), and
    /// `scipy.stats.binomtest(k, n).proportion_ci(method="wilson")`, SciPy 1.17.1.
    #[test]
    fn wilson_agrees_with_published_values() {
        for (successes, trials, low, high) in [
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0, 0.1611),
            (1, 29, 0.0061, 0.1718),
        ] {
            let Interval { low: found_low, high: found_high } = wilson(successes, trials);
            assert!((found_low - low).abs() <= 5.1e-5 && (found_high - high).abs() <= 5.1e-5);
        }
        for (successes, trials, low, high) in [
            (7091, 7600, 0.9271846615175272, 0.9384304404865622),
            (81, 263, 0.2552885198782742, 0.36620957698280004),
            (7600, 7600, 0.9994948002478092, 1.0),
            (0, 1, 0.0, 0.7934506856227626),
        ] {
            let found = wilson(successes, trials);
            close(found.low, low, 1e-12);
            close(found.high, high, 1e-12);
        }
        assert_eq!(wilson(0, 0), Interval { low: 0.0, high: 1.0 });
    }

    /// `scipy.stats.binomtest(min(a, b), a + b).pvalue`, SciPy 1.17.1.
    #[test]
    fn mcnemar_agrees_with_scipy() {
        for (a, b, p) in [
            (150, 86, 3.7159361395713866e-05),
            (0, 6, 0.03125),
            (1, 9, 0.021484375),
            (40, 61, 0.046044066929342785),
            (3, 0, 0.25),
            (1200, 1000, 2.1817026407914194e-05),
            (20000, 20400, 0.04713209701042834),
        ] {
            close(mcnemar(a, b), p, 1e-9);
            close(mcnemar(b, a), p, 1e-9);
        }
        for (a, b) in [(0, 0), (5, 5), (1, 0), (6, 5)] {
            close(mcnemar(a, b), 1.0, 1e-12);
        }
    }

    /// `scipy.stats.t.ppf(0.975, n)` and `scipy.stats.t.interval(0.95, n - 1, mean, sem)`, SciPy 1.17.1.
    #[test]
    fn student_agrees_with_scipy() {
        for (degrees, t) in [
            (1, 12.706204736174694),
            (2, 4.302652729749462),
            (3, 3.1824463052837078),
            (4, 2.7764451051977934),
            (9, 2.262157162798205),
            (30, 2.0422724563012378),
            (999, 1.9623414611334493),
        ] {
            close(t_95(degrees), t, 1e-9);
        }
        let (mean, interval) = student(&[0.9346, 0.9357, 0.9331]).unwrap();
        close(mean, 0.9344666666666667, 1e-14);
        close(interval.low, 0.9312245735015698, 1e-11);
        close(interval.high, 0.9377087598317635, 1e-11);
        assert_eq!(student_of_fractions(&[0.1, 0.9]), Some(Interval { low: 0.0, high: 1.0 }));
        assert_eq!(student(&[0.5]), None);
        assert_eq!(student(&[0.5, 0.5]), Some((0.5, Interval { low: 0.5, high: 0.5 })));
    }

    /// scikit-learn's `confusion_matrix` and `f1_score(average="macro")` of the same ten texts.
    #[test]
    fn confusion_agrees_with_scikit_learn() {
        let mut confusion = Confusion::new(4); // the fourth class never occurs, and must not count
        let labels = [0, 0, 0, 1, 1, 2, 2, 2, 2, 1];
        let predicted = [0, 1, 0, 1, 2, 2, 2, 0, 2, 1];
        for (label, predicted) in labels.into_iter().zip(predicted) {
            confusion.record(label, predicted);
        }
        let expected = [[2, 1, 0], [0, 2, 1], [1, 0, 3]];
        for (label, row) in expected.iter().enumerate() {
            for (predicted, count) in row.iter().enumerate() {
                assert_eq!(confusion.count(label, predicted), *count);
            }
        }
        close(confusion.macro_f1(), 0.6944444444444443, 1e-14);
        assert_eq!((confusion.correct(), confusion.total(), confusion.accuracy()), (7, 10, 0.7));
        assert_eq!(Confusion::new(2).accuracy(), 0.0);
    }

    #[test]
    fn pairs_count_only_where_one_is_right() {
        let mut paired = Paired::default();
        for (first, second) in [(true, true), (true, false), (true, false), (false, true), (false, false)] {
            paired.record(first, second);
        }
        assert_eq!(paired, Paired { only_first: 2, only_second: 1 });
        close(paired.p_value(), 1.0, 1e-12);
    }
}
