//! Packing: from a borrowed matrix to words, in lines for `a` and in panels for `b`.
//!
//! Both orientations of both operands come down to two moves. *Along*: neighbours in memory are
//! neighbours along k, and a word takes one (f32) or two (bf16) of them. *Across*: neighbours in memory
//! are neighbours along m or n, and a word takes one from each of one or two lines. Lines of `a` want
//! words along, panels of `b` want words across; the other two cases transpose blocks of 16×16 words.

use super::{Line, Matrix, PANEL, PanelsMut};
use std::ops::Range;

/// Sixteen words.
pub(super) type Words = [u32; PANEL];

/// How floats become words.
pub(super) trait Packing {
    /// Floats in a word.
    const FLOATS: usize;

    /// Words of neighbours: `from` has `16·FLOATS` elements.
    fn along(from: &[f32]) -> Words;

    /// Words of sixteen pairs; one that holds a single float takes it from `low`.
    fn across(low: &[f32; PANEL], high: &[f32; PANEL]) -> Words;
}

/// How one instruction set turns a block of words.
pub(super) trait Transpose {
    /// Rows become columns.
    fn transpose(block: &mut [Words; PANEL]);
}

/// Fills one line per row of `a` with the words in `words`.
#[inline(always)]
pub(super) fn pack_a<P: Packing, T: Transpose>(a: Matrix<'_>, words: Range<usize>, lines: &mut [Line]) {
    if a.transposed {
        // Sixteen rows of memory at a time, over the whole width: they lie on as many pages.
        for at in 0..words.len().div_ceil(PANEL) {
            for (index, lines) in lines.chunks_mut(PANEL).enumerate() {
                let mut block = [[0; PANEL]; PANEL];
                for (row, word) in block.iter_mut().zip(words.start + at * PANEL..words.end) {
                    *row = words_across::<P>(&a.transpose(), word, index * PANEL);
                }
                T::transpose(&mut block);
                for (line, row) in lines.iter_mut().zip(&block) {
                    line.as_chunks_mut().0[at] = *row;
                }
            }
        }
    } else {
        for (index, line) in lines.iter_mut().enumerate() {
            let row = &a.line(index)[words.start * P::FLOATS..];
            let row = &row[..row.len().min(words.len() * P::FLOATS)];
            for (to, from) in line.as_chunks_mut().0.iter_mut().zip(row.chunks(PANEL * P::FLOATS)) {
                *to = words_along::<P>(from);
            }
        }
    }
}

/// Fills panels with the columns of `b` that they stand for.
#[inline(always)]
pub(super) fn pack_b<P: Packing, T: Transpose>(b: Matrix<'_>, into: &mut PanelsMut<'_>) {
    let words = into.precision.words(into.k);
    if words == 0 {
        return;
    }
    for (index, panel) in into.rows.chunks_exact_mut(words).enumerate() {
        let column = (into.first + index) * PANEL;
        if b.transposed {
            for (first, rows) in (0..words).step_by(PANEL).zip(panel.chunks_mut(PANEL)) {
                let mut block = [[0; PANEL]; PANEL];
                for (lane, row) in block.iter_mut().enumerate().take(into.n - column) {
                    let line = &b.line(column + lane)[first * P::FLOATS..];
                    *row = words_along::<P>(&line[..line.len().min(PANEL * P::FLOATS)]);
                }
                T::transpose(&mut block);
                match rows.first_chunk_mut() {
                    Some(rows) => *rows = block,
                    None => rows.copy_from_slice(&block[..rows.len()]),
                }
            }
        } else {
            for (word, row) in panel.iter_mut().enumerate() {
                *row = words_across::<P>(&b, word, column);
            }
        }
    }
}

/// Words along, with zeros beyond the end of `from`.
#[inline(always)]
fn words_along<P: Packing>(from: &[f32]) -> Words {
    if from.len() == PANEL * P::FLOATS {
        return P::along(from);
    }
    let mut padded = [0.0; 2 * PANEL];
    padded[..from.len()].copy_from_slice(from);
    P::along(&padded[..PANEL * P::FLOATS])
}

/// Row `word` of words across sixteen columns, with zeros beyond the matrix.
#[inline(always)]
fn words_across<P: Packing>(matrix: &Matrix<'_>, word: usize, column: usize) -> Words {
    let floats = |row: usize| -> [f32; PANEL] {
        let mut padded = [0.0; PANEL];
        if row < matrix.rows {
            let line = &matrix.line(row)[column..];
            match line.first_chunk() {
                Some(full) => padded = *full,
                None => padded[..line.len()].copy_from_slice(line),
            }
        }
        padded
    };
    match P::FLOATS {
        1 => P::across(&floats(word), &[0.0; PANEL]),
        _ => P::across(&floats(2 * word), &floats(2 * word + 1)),
    }
}

/// The upper half of a float, rounded to nearest even; a NaN stays one.
#[inline(always)]
pub(super) fn to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    (if x.is_nan() { bits | 0x0040_0000 } else { rounded } >> 16) as u16
}

/// Two floats as bf16 in one word, the first one low.
#[inline(always)]
pub(super) fn bf16_pair(low: f32, high: f32) -> u32 {
    u32::from(to_bf16(low)) | u32::from(to_bf16(high)) << 16
}
