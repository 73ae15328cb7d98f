//! Measures variants of a model on the same texts, and makes the rows of the table.
//!
//! Accuracy first, over all texts and in blocks, so that a variant may use all threads and memory stays
//! bounded: beyond one byte a text, which remembers where the baseline was right, nothing grows with the
//! data. Then latency, interleaved over all variants, one text at a time.

use super::latency::{Call, Clock, Plan, interleaved};
use super::{Confusion, Latency, Paired, Row};
use crate::stages::Progress;
use crate::{Error, Result, Text};
use std::sync::atomic::AtomicBool;

/// Texts of a block of evaluation.
const BLOCK: usize = 256;

/// A model as it is deployed: opened from the file whose bytes are counted.
pub trait MeasuredModel {
    /// Number of classes.
    fn classes(&self) -> usize;
    /// The class of each text, appended to `classes`; may use several threads.
    ///
    /// # Errors
    /// Whatever the model cannot compute.
    fn predict(&mut self, texts: &[Text<'_>], classes: &mut Vec<usize>) -> Result<()>;
    /// The logits of a batch, `[texts, classes]`, with the threads that latency is measured with.
    ///
    /// # Errors
    /// Whatever the model cannot compute.
    fn logits(&mut self, texts: &[Text<'_>]) -> Result<&[f32]>;
    /// Bytes of its files.
    fn file_bytes(&self) -> u64;
    /// Parameters that its files hold.
    fn parameters(&self) -> u64;
    /// Fraction of the parameters that are zero.
    fn sparsity(&self) -> f64;
    /// Multiply-adds for one text of so many tokens, without those of zero blocks; `None` of what is no network.
    fn multiply_adds(&self, tokens: usize) -> Option<u64> {
        let _ = tokens;
        None
    }
}

/// Tokenized texts with their labels.
pub trait Texts {
    /// Number of texts.
    fn len(&self) -> usize;
    /// Text `i`.
    fn text(&self, i: usize) -> Text<'_>;
    /// Its class.
    fn label(&self, i: usize) -> usize;
    /// A hash of the texts and classes, whoever reads them, if one is known.
    fn hash(&self) -> Option<&str> {
        None
    }
    /// Whether there is no text.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A model to measure, and the texts as it reads them.
pub struct Variant<'a> {
    /// Its name in the table.
    pub name: String,
    /// The model.
    pub subject: &'a mut dyn MeasuredModel,
    /// In the same order for all variants; another vocabulary has other tokens for the same text.
    pub texts: &'a dyn Texts,
}

/// Measures `variants` on the same texts; the first is the baseline. `timing` None: no latency.
/// `stop` is polled between blocks, and between calls that are timed.
///
/// # Errors
/// No text; a label that a variant has no class for; what a variant cannot compute; [`Error::Interrupted`].
pub fn measure(
    variants: &mut [Variant<'_>],
    timing: Option<(Plan, &mut dyn Clock)>,
    progress: &dyn Progress,
    stop: &AtomicBool,
) -> Result<Vec<Row>> {
    let count = variants.first().map_or(0, |baseline| baseline.texts.len());
    if count == 0 {
        return Err(Error::setting("data.test", "holds no text", "name a file with at least one row"));
    }
    let mut rows: Vec<Row> = Vec::new();
    let mut baseline_right: Vec<bool> = Vec::with_capacity(count);
    for (number, Variant { name, subject, texts }) in variants.iter_mut().enumerate() {
        assert_eq!(texts.len(), count, "all variants are measured on the same texts");
        progress.begin(&format!("evaluate {name}"), count as u64);
        let mut confusion = Confusion::new(subject.classes());
        let mut pair = Paired::default();
        answers_unless(stop, *subject, *texts, progress, |i, label, predicted| {
            confusion.record(label, predicted);
            match number {
                0 => baseline_right.push(label == predicted),
                _ => pair.record(baseline_right[i], label == predicted),
            }
        })?;
        progress.end();
        rows.push(Row {
            variant: name.clone(),
            confusion,
            against_baseline: (number > 0).then_some(pair),
            file_bytes: subject.file_bytes(),
            parameters: subject.parameters(),
            sparsity: subject.sparsity(),
            tokens: (0..count).map(|text| texts.text(text).ids.len() as u64).sum(),
            texts_hash: texts.hash().map(str::to_owned),
            latency: None,
        });
    }
    if let Some((plan, clock)) = timing {
        progress.begin("latency", 0);
        let latencies = latencies(variants, plan, clock, stop)?;
        for (row, latency) in rows.iter_mut().zip(latencies) {
            row.latency = Some(latency);
        }
        progress.end();
    }
    Ok(rows)
}

/// How long each of `variants` takes for a text alone, all taking turns on the same texts: `plan.inputs` of them, or as many
/// as there are.
///
/// # Errors
/// What a variant cannot compute; [`Error::Interrupted`].
pub fn latencies(
    variants: &mut [Variant<'_>],
    plan: Plan,
    clock: &mut dyn Clock,
    stop: &AtomicBool,
) -> Result<Vec<Latency>> {
    let texts = variants.iter().map(|variant| variant.texts.len()).min().unwrap_or(0);
    let plan = Plan { inputs: plan.inputs.min(texts), ..plan };
    let call = |variant: &'_ mut Variant<'_>, i| {
        Error::if_stopped(stop)?;
        variant.subject.logits(&[variant.texts.text(i)]).map(drop)
    };
    let mut calls: Vec<Call<'_, Error>> =
        variants.iter_mut().map(|variant| Box::new(move |i| call(variant, i)) as Call<'_, Error>).collect();
    interleaved(plan, clock, &mut calls)
}

/// Calls `each` with the index, the label and the predicted class of every text, in order.
///
/// # Errors
/// A label that the model has no class for; what it cannot compute.
pub fn answers(
    subject: &mut dyn MeasuredModel,
    texts: &dyn Texts,
    progress: &dyn Progress,
    each: impl FnMut(usize, usize, usize),
) -> Result<()> {
    answers_unless(&AtomicBool::new(false), subject, texts, progress, each)
}

/// [`answers`] until `stop` is set.
fn answers_unless(
    stop: &AtomicBool,
    subject: &mut dyn MeasuredModel,
    texts: &dyn Texts,
    progress: &dyn Progress,
    mut each: impl FnMut(usize, usize, usize),
) -> Result<()> {
    let mut predicted = Vec::with_capacity(BLOCK);
    let mut block: Vec<Text<'_>> = Vec::with_capacity(BLOCK);
    for start in (0..texts.len()).step_by(BLOCK) {
        Error::if_stopped(stop)?;
        let range = start..(start + BLOCK).min(texts.len());
        block.clear();
        block.extend(range.clone().map(|i| texts.text(i)));
        predicted.clear();
        subject.predict(&block, &mut predicted)?;
        assert_eq!(predicted.len(), block.len(), "one class a text");
        for (i, class) in range.clone().zip(&predicted) {
            let label = texts.label(i);
            if label >= subject.classes() {
                let problem =
                    format!("text {} is of class {label}, the model has {}", i + 1, subject.classes());
                return Err(Error::setting("data", problem, "check data.labels and data.label_column"));
            }
            each(i, label, *class);
        }
        progress.advance(range.len() as u64);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::latency::WallClock;
    use crate::stages::Silent;

    /// Texts of one token each; text i is of class i mod 3, which its token says.
    struct Numbers(Vec<u32>);

    impl Texts for Numbers {
        fn len(&self) -> usize {
            self.0.len()
        }
        fn text(&self, i: usize) -> Text<'_> {
            (&self.0[i..=i]).into()
        }
        fn label(&self, i: usize) -> usize {
            i % 3
        }
    }

    /// Right unless the token is a multiple of `wrong`.
    struct Fake {
        wrong: u32,
        logits: [f32; 3],
    }

    impl MeasuredModel for Fake {
        fn classes(&self) -> usize {
            3
        }
        fn predict(&mut self, texts: &[Text<'_>], classes: &mut Vec<usize>) -> Result<()> {
            let class = |token: u32| (token + u32::from(token.is_multiple_of(self.wrong))) as usize % 3;
            classes.extend(texts.iter().map(|text| class(text.ids[0])));
            Ok(())
        }
        fn logits(&mut self, _: &[Text<'_>]) -> Result<&[f32]> {
            Ok(&self.logits)
        }
        fn file_bytes(&self) -> u64 {
            u64::from(self.wrong)
        }
        fn parameters(&self) -> u64 {
            1
        }
        fn sparsity(&self) -> f64 {
            0.0
        }
    }

    #[test]
    fn rows_hold_counts_pairs_and_latencies() {
        let texts = Numbers((0..1000).collect());
        let [mut first, mut second] = [10, 4].map(|wrong| Fake { wrong, logits: [0.0; 3] });
        let mut variants = [
            Variant { name: "baseline".into(), subject: &mut first, texts: &texts },
            Variant { name: "worse".into(), subject: &mut second, texts: &texts },
        ];
        let plan = Plan { inputs: 5000, repeat: 1, warmup: 1 };
        let (clock, stop) = (&mut WallClock::default(), AtomicBool::new(false));
        let rows = measure(&mut variants, Some((plan, clock)), &Silent, &stop).unwrap();
        assert_eq!((rows[0].confusion.correct(), rows[1].confusion.correct()), (900, 750));
        assert_eq!((rows[0].confusion.total(), rows[0].file_bytes, rows[1].file_bytes), (1000, 10, 4));
        // Multiples of 4 but not of 20 are wrong only in the second, of 10 but not of 20 only in the first.
        assert_eq!(rows[1].against_baseline, Some(Paired { only_first: 200, only_second: 50 }));
        assert_eq!(rows[0].against_baseline, None);
        assert_eq!(rows[1].latency.unwrap().calls, 1000, "no more inputs than texts");
    }

    #[test]
    fn each_variant_reads_its_own_tokens() {
        // The second reads token t as t + 3, which is of the same class, but a multiple of 5 for other texts.
        let (texts, others) = (Numbers((0..90).collect()), Numbers((3..93).collect()));
        let [mut first, mut second] = [5, 5].map(|wrong| Fake { wrong, logits: [0.0; 3] });
        let mut variants = [
            Variant { name: "baseline".into(), subject: &mut first, texts: &texts },
            Variant { name: "respelled".into(), subject: &mut second, texts: &others },
        ];
        let rows = measure(&mut variants, None, &Silent, &AtomicBool::new(false)).unwrap();
        assert_eq!((rows[0].confusion.correct(), rows[1].confusion.correct()), (72, 72));
        assert_eq!(rows[1].against_baseline, Some(Paired { only_first: 18, only_second: 18 }));
        assert_eq!((rows[0].tokens, rows[1].tokens), (90, 90));
    }

    #[test]
    fn no_text_and_unknown_classes_are_errors() {
        struct Odd;
        impl Texts for Odd {
            fn len(&self) -> usize {
                1
            }
            fn text(&self, _: usize) -> Text<'_> {
                (&[1][..]).into()
            }
            fn label(&self, _: usize) -> usize {
                3
            }
        }
        let mut fake = Fake { wrong: 2, logits: [0.0; 3] };
        for (texts, expected) in
            [(&Odd as &dyn Texts, "data: text 1 is of class 3"), (&Numbers(vec![]), "data.test: ")]
        {
            let mut variants = [Variant { name: "baseline".into(), subject: &mut fake, texts }];
            let stop = AtomicBool::new(false);
            let error = measure(&mut variants, None, &Silent, &stop).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn a_signal_ends_it() {
        let mut fake = Fake { wrong: 2, logits: [0.0; 3] };
        let (texts, stop) = (Numbers((0..9).collect()), AtomicBool::new(true));
        let mut variants = [Variant { name: "baseline".into(), subject: &mut fake, texts: &texts }];
        let found = measure(&mut variants, None, &Silent, &stop);
        assert!(matches!(found, Err(Error::Interrupted { checkpoint: None })), "{found:?}");
    }
}
