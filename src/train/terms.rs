//! The terms of feature distillation: one thing for each of them, be it a weight or a value.

/// One `T` for each term.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Terms<T> {
    /// Mean square between hidden states ([`crate::ops::mean_square`]).
    pub hidden: T,
    /// One minus the cosine between hidden states ([`crate::ops::cosine`]).
    pub cosine: T,
    /// Divergence of attention maps ([`crate::ops::relation`]).
    pub attention: T,
    /// Divergence of the relations among queries, keys and values ([`crate::ops::relation`]).
    pub relations: T,
}

impl<T: Copy> Terms<T> {
    /// Each with the name that recipes and logs have for it.
    pub fn named(&self) -> [(&'static str, T); 4] {
        let Terms { hidden, cosine, attention, relations } = *self;
        [("hidden", hidden), ("cosine", cosine), ("attention", attention), ("relations", relations)]
    }
}

impl Terms<Option<f64>> {
    /// Those that take part.
    pub fn present(&self) -> impl Iterator<Item = (&'static str, f64)> {
        self.named().into_iter().filter_map(|(name, value)| Some((name, value?)))
    }
}

impl Terms<f64> {
    /// Whether any term counts.
    pub fn any(&self) -> bool {
        self.named().iter().any(|(_, weight)| *weight > 0.0)
    }

    /// Whether hidden states are compared.
    pub fn compares_states(&self) -> bool {
        self.hidden > 0.0 || self.cosine > 0.0
    }

    /// Whether queries, keys and values are compared.
    pub fn compares_attention(&self) -> bool {
        self.attention > 0.0 || self.relations > 0.0
    }

    /// The sum of `values`, each as often as it counts.
    pub fn weigh(&self, values: &Terms<Option<f64>>) -> f64 {
        self.named()
            .iter()
            .zip(values.named())
            .map(|((_, weight), (_, value))| weight * value.unwrap_or(0.0))
            .sum()
    }
}
