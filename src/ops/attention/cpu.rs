//! Attention on the CPU: one task a text.

use super::AttentionOps;
use super::texts::Texts;
use crate::backend::Cpu;
use crate::backend::cpu::threads::split_rows;
use crate::nn::Attend;
use crate::ops::dropout::DropoutSite;
use crate::tensor::{Shape, Tensor};
use crate::{Batch, Result};
use limbeck_kernels::rows::AttentionGradients;
use rayon::prelude::*;

impl AttentionOps for Cpu {
    fn attention_forward(
        &self,
        batch: &Batch,
        attend: &Attend,
        qkv: [&Tensor<Self>; 3],
        dropout: Option<&DropoutSite>,
    ) -> Result<[Tensor<Self>; 2]> {
        let texts = Texts { batch, attend, qkv, dropout };
        let (rows, width) = (qkv[0].rows(), attend.heads * attend.head_size);
        let mut context = self.buffer(rows * width);
        let mut sums = self.buffer(rows * attend.heads);
        let contexts = split_rows(&mut context, width, texts.queries());
        let parts = contexts.into_par_iter().zip(split_rows(&mut sums, attend.heads, texts.queries()));
        parts.enumerate().for_each(|(text, (context, sums))| {
            self.kernels().attention_forward(&texts.args(text), context, width, sums);
        });
        let context = Tensor::from_buffer(context, Shape::new(rows, width));
        Ok([context, Tensor::from_buffer(sums, Shape::new(rows, attend.heads))])
    }

    fn mean_attention(
        &self,
        batch: &Batch,
        attend: &Attend,
        qkv: [&Tensor<Self>; 3],
        means: &mut [f64],
    ) -> Result<()> {
        let texts = Texts { batch, attend, qkv, dropout: None };
        let of_text = |text: usize| -> Vec<f64> {
            let args = texts.args(text);
            let mut probabilities = vec![0.0; args.queries * args.len];
            let mean = |head| {
                self.kernels().attention_probabilities(&args, head, &mut probabilities);
                let sum: f64 = probabilities.iter().map(|p| f64::from(p.abs())).sum();
                sum / probabilities.len() as f64
            };
            (0..attend.heads).map(mean).collect()
        };
        let of_texts: Vec<Vec<f64>> = (0..batch.texts()).into_par_iter().map(of_text).collect();
        for of_text in of_texts {
            means.iter_mut().zip(of_text).for_each(|(mean, of_text)| *mean += of_text);
        }
        Ok(())
    }

    fn attention_backward(
        &self,
        batch: &Batch,
        attend: &Attend,
        qkv: [&Tensor<Self>; 3],
        dropout: Option<&DropoutSite>,
        [context, sums]: [&Tensor<Self>; 2],
        dcontext: &Tensor<Self>,
    ) -> Result<[Tensor<Self>; 3]> {
        let texts = Texts { batch, attend, qkv, dropout };
        let width = attend.heads * attend.head_size;
        let mut gradients = qkv.map(|x| self.buffer(x.shape().len()));
        let [dq, dk, dv] = &mut gradients;
        let keys = || (0..batch.texts()).map(|text| batch.text(text));
        let dqs = split_rows(dq, width, texts.queries());
        let parts = dqs.into_par_iter().zip(split_rows(dk, width, keys())).zip(split_rows(dv, width, keys()));
        parts.enumerate().for_each(|(text, ((dq, dk), dv))| {
            let rows = texts.query(text);
            let elements = rows.start * width..rows.end * width;
            let (context, dcontext) = (&context.buffer()[elements.clone()], &dcontext.buffer()[elements]);
            let sums = &sums.buffer()[rows.start * attend.heads..rows.end * attend.heads];
            let into =
                &mut AttentionGradients { dq, dq_stride: width, dk, dk_stride: width, dv, dv_stride: width };
            self.kernels().attention_backward(&texts.args(text), context, dcontext, width, sums, into);
        });
        let shapes = qkv.map(Tensor::shape);
        let [dq, dk, dv] = gradients;
        let tensor = Tensor::from_buffer;
        Ok([tensor(dq, shapes[0]), tensor(dk, shapes[1]), tensor(dv, shapes[2])])
    }
}
