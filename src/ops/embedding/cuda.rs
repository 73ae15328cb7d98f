//! Embedding tables on a GPU. The host sorts tokens by the row that they read, so that rows are summed without atomics.

use super::{EmbeddingOps, Lookup};
use crate::Result;
use crate::backend::cuda::{Argument, Grid, Memory, Plain, Storage};
use crate::backend::{Cuda, Device};
use crate::tensor::{Shape, Tensor};

/// Tokens whose rows one block gathers.
const TOKENS: usize = 8;

/// Tokens that one block sums, as `embedding.cu` says.
const CHUNK: usize = 64;

/// As in `embedding.cu`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(C)]
struct Chunk {
    row: i32,
    first: i32,
    last: i32,
    place: i32,
}

// SAFETY: four numbers of four bytes.
unsafe impl Plain for Chunk {}

/// Tokens, sorted by the row that they read, and cut.
struct Sorted {
    order: Vec<u32>,
    chunks: Vec<Chunk>,
    /// Rows of several chunks, and the places of their sums.
    rows: Vec<Chunk>,
}

impl Sorted {
    fn new(rows: &[u32]) -> Sorted {
        // By row, then by token.
        let mut keys: Vec<u64> =
            rows.iter().zip(0..).map(|(&row, token)| u64::from(row) << 32 | token).collect();
        keys.sort_unstable();
        let order: Vec<u32> = keys.into_iter().map(|key| key as u32).collect();
        let mut sorted = Sorted { order: Vec::new(), chunks: Vec::new(), rows: Vec::new() };
        let (mut first, mut sums) = (0, 0);
        for same in order.chunk_by(|a, b| rows[*a as usize] == rows[*b as usize]) {
            let (row, last, several) =
                (rows[same[0] as usize] as i32, first + same.len(), same.len() > CHUNK);
            let from = sums;
            for start in (first..last).step_by(CHUNK) {
                let place = if several { sums } else { -1 };
                sums += i32::from(several);
                let end = (start + CHUNK).min(last);
                sorted.chunks.push(Chunk { row, first: start as i32, last: end as i32, place });
            }
            if several {
                sorted.rows.push(Chunk { row, first: from, last: sums, place: -1 });
            }
            first = last;
        }
        sorted.order = order;
        sorted
    }

    /// Filled up to as many chunks, and rows of several, as so many tokens can have of a table of `entries`: those that are not
    /// needed have no tokens. So launches depend on how many tokens there are, and not on which.
    fn filled(mut self, entries: usize) -> Sorted {
        let tokens = self.order.len();
        self.chunks.resize(tokens.min(entries) + tokens / CHUNK, Chunk::default());
        self.rows.resize(tokens / (CHUNK + 1), Chunk::default());
        self
    }

    /// The most sums that rows of several chunks have: such a row has 65 tokens for 2 chunks, and ever more for each.
    fn most_sums(tokens: usize) -> usize {
        2 * tokens / (CHUNK + 1)
    }
}

impl EmbeddingOps for Cuda {
    fn gather(&self, lookups: &[Lookup<'_, Self>]) -> Result<Tensor<Self>> {
        assert!((1..=3).contains(&lookups.len()), "words, positions, types");
        let shape = Shape::new(lookups[0].rows.len(), lookups[0].table.cols());
        let y = self.activations(shape)?;
        let rows =
            lookups.iter().map(|lookup| self.upload_all(lookup.rows)).collect::<Result<Vec<Memory>>>()?;
        let table = |i: usize| lookups.get(i).map(|lookup| lookup.table.buffer());
        let (first, second, third) = (table(0), table(1), table(2));
        let arguments: [&dyn Argument; 9] = [
            &first,
            &rows.first(),
            &second,
            &rows.get(1),
            &third,
            &rows.get(2),
            &(shape.rows as i32),
            &(shape.cols as i32),
            y.buffer(),
        ];
        let grid = Grid::blocks(shape.rows.div_ceil(TOKENS), 32 * TOKENS);
        self.launch("embedding", self.storage(), "gather", grid, &arguments)?;
        Ok(y)
    }

    fn scatter(
        &self,
        dy: &Tensor<Self>,
        rows: &[u32],
        dtable: &mut Tensor<Self>,
        accumulate: bool,
    ) -> Result<()> {
        let cols = dtable.cols();
        if !accumulate {
            *dtable = Tensor::from_buffer(self.zeros(dtable.shape().len())?, dtable.shape());
        }
        let (dy, sorted) = (self.activation(dy)?, Sorted::new(rows).filled(dtable.rows()));
        let order = self.upload_all(&sorted.order)?;
        let chunks = self.upload_all(&sorted.chunks)?;
        let of_rows = self.upload_all(&sorted.rows)?;
        let partial = self.buffer(Sorted::most_sums(rows.len()) * cols, Storage::F32)?;
        let (cols, accumulate) = (cols as i32, i32::from(accumulate));
        let arguments: [&dyn Argument; 7] =
            [dy.buffer(), &order, &chunks, &cols, &accumulate, dtable.buffer(), &partial];
        self.launch(
            "embedding",
            self.storage(),
            "scatter_chunks",
            Grid::blocks(sorted.chunks.len(), 256),
            &arguments,
        )?;
        let arguments: [&dyn Argument; 5] = [&partial, &of_rows, &cols, &accumulate, dtable.buffer()];
        self.launch(
            "embedding",
            self.storage(),
            "scatter_sums",
            Grid::blocks(sorted.rows.len(), 256),
            &arguments,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_is_in_one_chunk_of_its_row_in_order() {
        let rows: Vec<u32> = (0..500u32).map(|i| if i % 3 == 0 { 7 } else { i * 37 % 11 }).collect();
        let sorted = Sorted::new(&rows);
        let mut seen = Vec::new();
        for chunk in &sorted.chunks {
            let tokens = &sorted.order[chunk.first as usize..chunk.last as usize];
            assert!(!tokens.is_empty() && tokens.len() <= CHUNK);
            assert!(tokens.iter().all(|&token| rows[token as usize] == chunk.row as u32));
            assert!(tokens.is_sorted(), "in the order of the tokens");
            seen.extend_from_slice(tokens);
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..500).collect::<Vec<u32>>());
        let kept: Vec<i32> =
            sorted.chunks.iter().map(|chunk| chunk.place).filter(|&place| place >= 0).collect();
        let sums = sorted.rows.last().map_or(0, |row| row.last);
        assert_eq!(kept, (0..sums).collect::<Vec<_>>());
        assert!(!sorted.rows.is_empty(), "row 7 is read by more tokens than a chunk has");
    }

    #[test]
    fn there_is_room_for_all_chunks() {
        for (tokens, entries) in [(0, 9), (1, 9), (64, 1), (65, 1), (130, 2), (200, 3), (129, 500), (900, 7)]
        {
            for spread in 1..=entries.min(12) {
                let rows: Vec<u32> = (0..tokens).map(|i| (i * i % spread) as u32).collect();
                let (sorted, whole) = (Sorted::new(&rows), Sorted::new(&rows).filled(entries));
                let what = format!("{tokens} tokens, {spread} rows");
                assert!(whole.chunks.starts_with(&sorted.chunks), "{what}");
                assert!(whole.rows.starts_with(&sorted.rows), "{what}");
                let sums = sorted.rows.last().map_or(0, |row| row.last as usize);
                assert!(sums <= Sorted::most_sums(tokens), "{what}");
            }
        }
    }
}
