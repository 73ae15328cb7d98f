//! What few bits do to each matrix, as a table.

use super::cells::{aligned, dash, grouped, markdown};
use crate::quantize::sensitivity::{MatrixSensitivity, Sensitivity};

/// Headings; all but the first column stand to the right. Ratios are in decibels.
const HEADINGS: [&str; 11] = [
    "matrix or table",
    "int8 bytes",
    "int4 bytes",
    "int8 dB",
    "int4 dB",
    "int8 output dB",
    "int4 output dB",
    "static: max",
    "percentile",
    "mse",
    "int4 divergence",
];

impl Sensitivity {
    /// For people.
    pub fn text(&self) -> String {
        format!("{}\n{}", aligned(&self.lines()), self.summary())
    }

    /// What [`text`](Self::text) says, in Markdown.
    pub fn markdown(&self) -> String {
        format!("{}\n{}", markdown(&self.lines()), self.summary())
    }

    fn lines(&self) -> Vec<[String; 11]> {
        [HEADINGS.map(str::to_owned)].into_iter().chain(self.parameters.iter().map(cells)).collect()
    }

    fn summary(&self) -> String {
        let (wins, matrices) = self.dynamic_wins();
        format!(
            "{} texts: the first half for static scales, the second for ratios (signal to noise), all for divergences \
             (nats a text).\nint8 outputs are better with a scale for each row of activations than with the best static \
             one in {wins} of {matrices} matrices.\n",
            grouped(self.texts as u64)
        )
    }
}

fn cells(parameter: &MatrixSensitivity) -> [String; 11] {
    let decibels = |value: Option<f64>| dash(value, |value| format!("{value:.1}"));
    let bytes = |bytes: usize| grouped(bytes as u64);
    let fixed = parameter.static_scales.unwrap_or_default();
    [
        parameter.name.clone(),
        bytes(parameter.int8.bytes),
        bytes(parameter.int4.bytes),
        decibels(parameter.int8.weights_db),
        decibels(parameter.int4.weights_db),
        decibels(parameter.int8.outputs_db),
        decibels(parameter.int4.outputs_db),
        decibels(fixed.max_db),
        decibels(fixed.percentile_db),
        decibels(fixed.mse_db),
        dash(parameter.divergence, |value| format!("{value:.1e}")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantize::sensitivity::{FormStats, StaticScales};

    #[test]
    fn the_table_says_what_was_measured() {
        let form = |bytes, db| FormStats { bytes, weights_db: Some(db), outputs_db: Some(db + 1.0) };
        let fixed = StaticScales { max_db: Some(30.0), percentile_db: None, mse_db: Some(46.2) };
        let matrix = MatrixSensitivity {
            name: "a.weight".into(),
            rows: 4,
            cols: 9,
            int8: form(1234, 44.0),
            int4: form(700, 20.5),
            static_scales: Some(fixed),
            divergence: Some(0.00123),
        };
        let table = MatrixSensitivity {
            name: "words".into(),
            static_scales: None,
            divergence: None,
            ..matrix.clone()
        };
        let sensitivity = Sensitivity { texts: 2000, parameters: vec![matrix, table] };
        let markdown = sensitivity.markdown();
        assert!(
            markdown.contains(
                "| a.weight | 1,234 | 700 | 44.0 | 20.5 | 45.0 | 21.5 | 30.0 | – | 46.2 | 1.2e-3 |"
            )
        );
        assert!(markdown.contains("| 21.5 | – | – | – | – |"), "{markdown}");
        let text = sensitivity.text();
        assert!(text.contains("in 0 of 1 matrices") && text.contains("2,000 texts"), "{text}");
    }
}
