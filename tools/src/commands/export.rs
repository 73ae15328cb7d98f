//! `limbeck export`: a model in another format. Never overwrites.

use crate::cli::{Export, Format};
use crate::failure::Failure;
use limbeck::stages::{self, ExportFormat};

pub fn export(typed: &Export) -> Result<(), Failure> {
    let format = match typed.format {
        Format::Hf => ExportFormat::Hf,
        Format::HfPadded => ExportFormat::HfPadded,
        Format::Limbeck => ExportFormat::Limbeck,
        Format::LimbeckInt8 => ExportFormat::LimbeckInt8,
    };
    stages::export(&typed.model, &typed.out, format)?;
    eprintln!("wrote {}", typed.out.display());
    Ok(())
}
