//! What layers are made of beyond their sizes: matrices that are products of two thinner ones, and parameters of other layers.

use super::ModelConfig;

/// The rank of each of a layer's matrices: query, key, value, attention output, expansion, contraction. 0 for one that is not
/// factored.
pub type MatrixRanks = [usize; 6];

impl ModelConfig {
    /// Outputs and inputs of each of a layer's matrices, in the order of [`MatrixRanks`].
    pub fn sides(&self, layer: usize) -> [[usize; 2]; 6] {
        let (hidden, width, units) =
            (self.hidden, self.attention_width(layer), self.layers[layer].intermediate);
        let projection = [width, hidden];
        [projection, projection, projection, [hidden, width], [units, hidden], [hidden, units]]
    }

    /// The ranks of a layer's matrices.
    pub fn ranks_of(&self, layer: usize) -> MatrixRanks {
        self.ranks.get(layer).copied().unwrap_or_default()
    }

    /// The layer whose parameters a layer uses.
    pub fn owner(&self, layer: usize) -> usize {
        self.shared.get(layer).copied().unwrap_or(layer)
    }

    /// The layers that use parameters of their own, ascending.
    pub fn own_layers(&self) -> impl Iterator<Item = usize> {
        (0..self.layers.len()).filter(|&layer| self.owner(layer) == layer)
    }

    /// Whether ranks and shared layers fit the layers that there are.
    pub(super) fn validate_structure(&self) -> std::result::Result<(), String> {
        for (what, lists) in [("ranks", self.ranks.len()), ("shared layers", self.shared.len())] {
            if lists != 0 && lists != self.layers.len() {
                return Err(format!("{what} of {lists} layers; there are {}", self.layers.len()));
            }
        }
        let (width, units) = (self.original_heads * self.head_size, self.original_intermediate);
        let sides = [width, width, width, width, units, units];
        for layer in 0..self.layers.len() {
            // So factors have at most twice the parameters of the original matrices, of which there is a limit.
            for (rank, side) in self.ranks_of(layer).into_iter().zip(sides) {
                let most = side.min(self.hidden);
                if rank > most {
                    return Err(format!(
                        "layer {layer}: a rank of {rank}; a matrix there has {most} at most"
                    ));
                }
            }
            let owner = self.owner(layer);
            if owner > layer || self.owner(owner) != owner {
                return Err(format!("layer {layer} uses the parameters of layer {owner}, which has none"));
            }
            if self.layers[owner] != self.layers[layer] || self.ranks_of(owner) != self.ranks_of(layer) {
                return Err(format!(
                    "layer {layer} uses the parameters of layer {owner}, which has other sizes"
                ));
            }
        }
        Ok(())
    }
}
