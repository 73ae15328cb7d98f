//! The operations of a network over one arena.

mod pass;
mod products;

pub(super) use pass::Pass;
pub(super) use products::Scratch;

use super::arena::{Arena, Slot, SlotRef, grow};
use super::weights::Weights;
use crate::Result;
use crate::models::config::Activation;
use crate::nn::{Attend, Attention, Embeddings, Exec, LayerNorm, Linear, attend_projected};
use crate::team::Member;
use limbeck_kernels::Kernels;
use limbeck_kernels::rows::{AbsorbedArgs, AttentionArgs, INT8_KEYS};
use products::Rows;
use std::ops::Range;

/// One thread's part in a pass: some neighbouring tokens, and the texts that begin there.
pub(super) struct Run<'r> {
    weights: &'r Weights,
    /// Whether products read bytes.
    quantize: bool,
    kernels: Kernels,
    pass: &'r Pass<'r>,
    member: &'r Member<'r>,
    arena: &'r mut Arena,
    scratch: &'r mut Scratch,
    /// Its tokens, counted from the pass's first.
    own: Range<usize>,
    /// The texts that begin among them.
    begun: Range<usize>,
}

/// A result: its slot, its size, and a layer that has still to be applied to it.
#[derive(Clone)]
pub(super) struct Var {
    claim: SlotRef,
    rows: usize,
    cols: usize,
    then: Option<Linear>,
}

impl<'r> Run<'r> {
    pub fn new(
        pass: &'r Pass<'r>,
        member: &'r Member<'r>,
        arena: &'r mut Arena,
        scratch: &'r mut Scratch,
    ) -> Run<'r> {
        let own = pass.shared_rows.rows(member);
        let before = |row: usize| (0..pass.texts.len()).filter(|&text| pass.begin(text) < row).count();
        let begun = before(own.start)..before(own.end);
        let (weights, quantize) = (&pass.model.weights, pass.model.quantizes);
        Run { weights, quantize, kernels: pass.kernels, pass, member, arena, scratch, own, begun }
    }

    /// The values of a result.
    pub fn values(&self, x: &Var) -> &[f32] {
        assert!(x.then.is_none(), "no network ends with a nonlinearity");
        &self.arena.get(&x.claim).values[..x.rows * x.cols]
    }

    /// The texts that have tokens here.
    fn texts(&self) -> Range<usize> {
        // The one before those that begin here may end here.
        let first = self.begun.start.saturating_sub(1);
        let reaches = first < self.begun.start && self.tokens_of(first).end > self.own.start;
        if reaches && !self.own.is_empty() { first..self.begun.end } else { self.begun.clone() }
    }

    /// The tokens of a text, counted from the pass's first.
    fn tokens_of(&self, text: usize) -> Range<usize> {
        self.pass.begin(text)..self.pass.begin(text + 1)
    }

    /// Those of some tokens that are here, counted from the first that is here.
    fn here(&self, tokens: Range<usize>) -> Range<usize> {
        let own = &self.own;
        let start = tokens.start.max(own.start);
        start - own.start..tokens.end.min(own.end).max(start) - own.start
    }

    /// The tokens of a text that are here, counted from the first that is here.
    fn tokens_here(&self, text: usize) -> Range<usize> {
        self.here(self.tokens_of(text))
    }

    /// Id, place in its text and type of a token that is here.
    fn token(&self, text: usize, here: usize) -> [usize; 3] {
        let Pass { batch, texts, skip, .. } = self.pass;
        let place = self.own.start + here - self.pass.begin(text) + skip;
        let text = texts.start + text;
        let id = batch.ids[batch.offsets[text] + place];
        [id as usize, place, batch.token_type(text, place).into()]
    }

    /// The rows of some tokens of a text in an activation of `rows` rows: of each that is here, or of each text begun here.
    fn rows_of(&self, text: usize, tokens: Range<usize>, rows: usize) -> Range<usize> {
        if rows == self.own.len() {
            return self.here(tokens);
        }
        // A text that began elsewhere has its row there.
        if self.begun.contains(&text) { text - self.begun.start..text - self.begun.start + 1 } else { 0..0 }
    }

    /// Shows all tokens' rows of some results to `read`, of which this thread gives its own.
    fn exchange<const N: usize, R>(
        &self,
        own: [&[f32]; N],
        cols: usize,
        read: impl FnOnce([&[f32]; N]) -> R,
    ) -> R {
        // SAFETY: the members of a session's team run one forward pass each, over one network: the same operations in the same
        // order.
        unsafe { self.pass.shared_rows.exchange(self.member, own, cols, read) }
    }

    /// Some rows of a result.
    fn rows(&self, x: &Var, range: Range<usize>) -> Rows<'_> {
        let slot = self.arena.get(&x.claim);
        let values = &slot.values[range.start * x.cols..range.end * x.cols];
        let int8 = slot.int8.rows(if slot.quantized { range.clone() } else { 0..0 });
        Rows { count: range.len(), values, int8 }
    }

    /// Fills a fresh slot.
    fn produce(&mut self, rows: usize, cols: usize, fill: impl FnOnce(&mut Self, &mut Slot)) -> Var {
        let (claim, mut slot) = self.arena.take();
        if self.quantize {
            slot.int8.reset(rows, cols);
        }
        fill(self, &mut slot);
        self.arena.put(&claim, slot);
        Var { claim, rows, cols, then: None }
    }

    /// Makes the bytes of some rows from their floats, if products will read them.
    fn quantize_rows(&self, slot: &mut Slot, rows: Range<usize>, cols: usize) {
        if self.quantize {
            quantize(self.kernels, slot, rows, cols);
        }
    }

    /// `y = gamma·(x − mean)/σ + beta` of one row, from the scratch row.
    fn normalize(&self, norm: &LayerNorm, x: &[f32], y: &mut [f32]) {
        let (gamma, beta) = (self.weights.vector(norm.gamma), self.weights.vector(norm.beta));
        self.kernels.layer_norm_forward(x, gamma, beta, norm.eps, y, None);
    }
}

/// Makes the bytes of some rows from their floats.
fn quantize(kernels: Kernels, slot: &mut Slot, rows: Range<usize>, cols: usize) {
    kernels.quantize_rows(&slot.values[rows.start * cols..rows.end * cols], &mut slot.int8, rows.start);
    slot.quantized = true;
}

impl Exec for Run<'_> {
    type Var = Var;

    fn embed(&mut self, tables: &Embeddings) -> Result<Var> {
        let hidden = tables.hidden;
        let [words, positions] = [tables.words, tables.positions].map(|id| self.weights.table(id));
        let types = tables.token_types.map(|id| self.weights.table(id));
        Ok(self.produce(self.own.len(), hidden, |run, slot| {
            let mut sum = std::mem::take(&mut run.scratch.wide);
            grow(&mut sum, hidden);
            let row = &mut sum[..hidden];
            for text in run.texts() {
                for here in run.tokens_here(text) {
                    let [id, place, kind] = run.token(text, here);
                    words.read(run.kernels, id, row, false);
                    positions.read(run.kernels, place, row, true);
                    if let Some(types) = types {
                        types.read(run.kernels, kind, row, true);
                    }
                    run.normalize(&tables.norm, row, &mut slot.values[here * hidden..(here + 1) * hidden]);
                    run.quantize_rows(slot, here..here + 1, hidden);
                }
            }
            run.scratch.wide = sum;
        }))
    }

    fn words(&mut self, tables: &Embeddings) -> Result<Var> {
        let words = self.weights.table(tables.words);
        let width = self.weights.specs[tables.words.index()].cols;
        Ok(self.produce(self.own.len(), width, |run, slot| {
            for text in run.texts() {
                for here in run.tokens_here(text) {
                    let row = &mut slot.values[here * width..(here + 1) * width];
                    words.read(run.kernels, run.token(text, here)[0], row, false);
                    run.quantize_rows(slot, here..here + 1, width);
                }
            }
        }))
    }

    fn embed_words(&mut self, tables: &Embeddings, words: &Var) -> Result<Var> {
        let hidden = tables.hidden;
        let positions = self.weights.table(tables.positions);
        let types = tables.token_types.map(|id| self.weights.table(id));
        Ok(self.produce(self.own.len(), hidden, |run, slot| {
            let mut wide = std::mem::take(&mut run.scratch.wide);
            grow(&mut wide, 2 * hidden);
            let (others, sum) = wide[..2 * hidden].split_at_mut(hidden);
            let words = run.values(words);
            for text in run.texts() {
                for here in run.tokens_here(text) {
                    let [_, place, kind] = run.token(text, here);
                    positions.read(run.kernels, place, others, false);
                    if let Some(types) = types {
                        types.read(run.kernels, kind, others, true);
                    }
                    let range = here * hidden..(here + 1) * hidden;
                    run.kernels.sum(&words[range.clone()], others, sum);
                    run.normalize(&tables.norm, sum, &mut slot.values[range]);
                    run.quantize_rows(slot, here..here + 1, hidden);
                }
            }
            run.scratch.wide = wide;
        }))
    }

    fn linear(&mut self, layer: &Linear, x: &Var) -> Result<Var> {
        if layer.activation != Activation::Identity {
            assert!(x.then.is_none(), "no network applies two nonlinear layers in a row");
            self.bytes_of(x);
            return Ok(Var { then: Some(layer.clone()), ..x.clone() });
        }
        let outputs = layer.outputs;
        if let Some(first) = &x.then {
            return Ok(self.produce(x.rows, outputs, |run, slot| {
                run.in_blocks(first, x, |run, rows, block| {
                    run.product(layer, block, &mut slot.values[rows.start * outputs..]);
                });
            }));
        }
        self.bytes_of(x);
        Ok(self.produce(x.rows, outputs, |run, slot| {
            run.product(layer, run.rows(x, 0..x.rows), &mut slot.values);
        }))
    }

    fn attend(&mut self, attend: &Attend, query: &Var, key: &Var, value: &Var) -> Result<Var> {
        let width = attend.heads * attend.head_size;
        Ok(self.produce(query.rows, width, |run, slot| {
            let own = [key, value].map(|var| run.values(var));
            run.exchange(own, width, |[k, v]| {
                for (text, keys) in run.texts().flat_map(|text| run.pass.attended(text, attend.decoupled)) {
                    let queries = run.rows_of(text, keys.clone(), query.rows);
                    if queries.is_empty() {
                        continue;
                    }
                    let part = keys.start * width..keys.end * width;
                    let args = AttentionArgs {
                        q: &run.values(query)[queries.start * width..queries.end * width],
                        q_stride: width,
                        k: &k[part.clone()],
                        k_stride: width,
                        v: &v[part],
                        v_stride: width,
                        len: keys.len(),
                        queries: queries.len(),
                        heads: attend.heads,
                        head_size: attend.head_size,
                        scale: attend.scale(),
                        dropout: None,
                    };
                    let context = &mut slot.values[queries.start * width..queries.end * width];
                    if run.quantize && keys.len() <= INT8_KEYS {
                        run.kernels.attention_int8(&args, context, width);
                    } else {
                        run.kernels.attention_forward(&args, context, width, &mut []);
                    }
                    run.quantize_rows(slot, queries, width);
                }
            });
        }))
    }

    fn self_attention(&mut self, attention: &Attention, x: &Var, first_only: bool) -> Result<[Var; 2]> {
        let layers = [&attention.key, &attention.value].map(|layer| self.layer_i8(layer));
        let ([Some(key), Some(value)], true) = (layers, first_only && attention.absorbs()) else {
            return attend_projected(self, attention, x, first_only);
        };
        let first = self.first_tokens(x)?;
        let query = attention.query.forward(self, &first)?;
        let Attend { heads, head_size, .. } = attention.attend;
        let (width, hidden) = (heads * head_size, x.cols);
        let context = self.produce(query.rows, width, |run, slot| {
            run.exchange([run.values(x)], hidden, |[x]| {
                for (place, text) in run.begun.clone().enumerate() {
                    let tokens = run.tokens_of(text);
                    let row = place * width..(place + 1) * width;
                    let args = AbsorbedArgs {
                        x: &x[tokens.start * hidden..tokens.end * hidden],
                        len: tokens.len(),
                        hidden,
                        query: &run.values(&query)[row.clone()],
                        key,
                        value,
                        heads,
                        head_size,
                        scale: attention.attend.scale(),
                    };
                    run.kernels.attention_absorbed(&args, &mut slot.values[row]);
                }
            });
            run.quantize_rows(slot, 0..query.rows, width);
        });
        Ok([context, first])
    }

    fn add_norm(&mut self, norm: &LayerNorm, x: &Var, residual: &Var, _dropout: f32) -> Result<Var> {
        let cols = x.cols;
        Ok(self.produce(x.rows, cols, |run, slot| {
            let mut sum = std::mem::take(&mut run.scratch.wide);
            grow(&mut sum, cols);
            let [x_values, residual] = [x, residual].map(|var| run.values(var));
            for row in 0..x.rows {
                let range = row * cols..(row + 1) * cols;
                let sum = &mut sum[..cols];
                run.kernels.sum(&x_values[range.clone()], &residual[range.clone()], sum);
                run.normalize(norm, sum, &mut slot.values[range]);
                run.quantize_rows(slot, row..row + 1, cols);
            }
            run.scratch.wide = sum;
        }))
    }

    fn first_tokens(&mut self, x: &Var) -> Result<Var> {
        let cols = x.cols;
        Ok(self.produce(self.begun.len(), cols, |run, slot| {
            let from = run.arena.get(&x.claim);
            for (place, text) in run.begun.clone().enumerate() {
                let row = run.rows_of(text, run.tokens_of(text), x.rows).start;
                slot.values[place * cols..(place + 1) * cols]
                    .copy_from_slice(&run.values(x)[row * cols..][..cols]);
                if from.quantized {
                    slot.int8.copy_row(place, &from.int8, row);
                }
            }
            slot.quantized = from.quantized;
        }))
    }

    fn mean_tokens(&mut self, x: &Var) -> Result<Var> {
        let cols = x.cols;
        Ok(self.produce(self.begun.len(), cols, |run, slot| {
            run.exchange([run.values(x)], cols, |[x]| {
                for (place, text) in run.begun.clone().enumerate() {
                    let tokens = run.tokens_of(text);
                    let mean = &mut slot.values[place * cols..(place + 1) * cols];
                    mean.fill(0.0);
                    run.kernels.column_sums(&x[tokens.start * cols..tokens.end * cols], mean);
                    run.kernels.scale(mean, 1.0 / tokens.len() as f32);
                }
            });
            run.quantize_rows(slot, 0..run.begun.len(), cols);
        }))
    }

    fn dropout(&mut self, x: &Var, _rate: f32) -> Result<Var> {
        Ok(x.clone())
    }
}

impl Run<'_> {
    /// A result from outside: the states of whole texts, whose first tokens have those of `first`, `[tokens, hidden]`, and
    /// whose other tokens have those of `others`, text by text.
    pub fn resume(&mut self, first: &[f32], others: &[f32]) -> Var {
        let hidden = self.pass.model.config().hidden;
        let skip = first.len() / hidden;
        self.produce(self.own.len(), hidden, |run, slot| {
            for text in run.texts() {
                for here in run.tokens_here(text) {
                    let (row, place) = (run.own.start + here, run.token(text, here)[1]);
                    let (states, from) =
                        if place < skip { (first, place) } else { (others, row - (text + 1) * skip) };
                    slot.values[here * hidden..(here + 1) * hidden]
                        .copy_from_slice(&states[from * hidden..(from + 1) * hidden]);
                }
            }
            run.quantize_rows(slot, 0..run.own.len(), hidden);
        })
    }

    /// Sees to it that a result which a product is about to read has bytes, if products read bytes.
    fn bytes_of(&mut self, x: &Var) {
        if self.quantize && !self.arena.get(&x.claim).quantized {
            let kernels = self.kernels;
            quantize(kernels, self.arena.get_mut(&x.claim), 0..x.rows, x.cols);
        }
    }
}
