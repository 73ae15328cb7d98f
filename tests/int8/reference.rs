//! Networks of transformers, from the reference files: in f32 the same logits, in int8 nearly, on every row the same bits.

use super::*;
use limbeck::checkpoint::{HfDirectory, TensorFile, parse_config};
use limbeck::infer::format::Golden;

fn integers(file: &TensorFile, name: &str) -> (Vec<usize>, Vec<u32>) {
    let bytes = file.bytes(name).unwrap();
    let numbers = bytes.chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap()));
    (file.shape(name).unwrap().to_vec(), numbers.collect())
}

/// The padded rows of a reference file as a ragged batch.
fn batch(file: &TensorFile, prefix: &str) -> Batch {
    let (shape, ids) = integers(file, &format!("{prefix}input_ids"));
    let (_, mask) = integers(file, &format!("{prefix}attention_mask"));
    let types = format!("{prefix}token_type_ids");
    let types = file.shape(&types).is_some().then(|| integers(file, &types).1);
    let mut batch = Batch::new();
    for row in 0..shape[0] {
        let row = row * shape[1]..(row + 1) * shape[1];
        let length = mask[row.clone()].iter().filter(|&&kept| kept == 1).count();
        batch.push(&ids[row.clone()][..length], 0);
        if let Some(types) = &types {
            batch.token_types.extend(types[row][..length].iter().map(|&kind| kind as u8));
        }
    }
    batch
}

fn read(file: &TensorFile, name: &str) -> Vec<f32> {
    let mut values = Vec::new();
    file.read_f32(name, &mut values).unwrap();
    values
}

#[test]
fn f32_logits_are_those_of_transformers() {
    for name in ["distilbert_classifier", "bert_classifier"] {
        let Some(path) = shared(&format!("reference/tiny/{name}.safetensors")) else { return };
        let file = TensorFile::open(&path).unwrap();
        let mut text = file.metadata()["config"].clone();
        if !text.contains("\"model_type\"") {
            let family = name.split('_').next().unwrap();
            text.insert_str(1, &format!("\"model_type\": \"{family}\", "));
        }
        let config = parse_config(&path, &text).unwrap();
        let model =
            Model::from_values(&config, |spec| Ok(read(&file, &format!("weight/{}", spec.name)))).unwrap();
        let batch = batch(&file, "input/");
        let expected = read(&file, "output/logits");
        for kernels in Kernels::available() {
            let mut session = Session::with(&model, kernels, 1);
            let worst = distance(session.logits(&batch).unwrap(), &expected);
            println!("{name} on {}: {worst:.1e}", kernels.isa());
            assert!(worst <= 2e-5, "{name} on {}: {worst}", kernels.isa());
        }
    }
}

/// Configuration, values, texts and the reference's logits.
type Encoder<Values> = (ModelConfig, Values, Batch, Vec<f32>);

/// The pretrained encoder with the reference's seeded head.
fn minilm() -> Option<Encoder<impl FnMut(&ParamSpec) -> Result<Vec<f32>>>> {
    let (directory, file) =
        (shared("models/minilm-l6-distil")?, shared("reference/minilm_agnews.safetensors")?);
    let directory = HfDirectory::open(&directory).unwrap();
    let file = TensorFile::open(&file).unwrap();
    let config = ModelConfig {
        labels: ["World", "Sports", "Business", "Sci/Tech"].map(str::to_owned).to_vec(),
        ..directory.config.clone()
    };
    let (batch, logits) = (batch(&file, ""), read(&file, "logits"));
    let values = move |spec: &ParamSpec| {
        let head = format!("head/{}", spec.name);
        if file.shape(&head).is_some() {
            return Ok(read(&file, &head));
        }
        let name = limbeck::checkpoint::find(&spec.name, |name| directory.tensors.shape(name).is_some());
        Ok(read(&directory.tensors, &name.unwrap()))
    };
    Some((config, values, batch, logits))
}

#[test]
fn a_real_encoder_in_f32_and_in_int8() {
    let Some((config, mut values, batch, expected)) = minilm() else { return };
    let model = Model::from_values(&config, &mut values).unwrap();
    let worst = distance(Session::new(&model).logits(&batch).unwrap(), &expected);
    println!("minilm in f32: {worst:.1e}");
    assert!(worst <= 2e-5, "{worst}");

    let path = Path::new("minilm");
    let golden = Golden { ids: batch.ids[batch.text(0)].to_vec(), ..Golden::default() };
    let extras = Extras { golden: vec![golden], ..Extras::default() };
    let quantized = quantize(path, &config, &mut values, Quantization::INT8, &extras).unwrap();
    // A scale for each row keeps every matrix of this encoder.
    for loss in &quantized.losses {
        assert!(loss.signal_to_noise > 30.0, "{}: {:.1} dB", loss.name, loss.signal_to_noise);
    }
    assert!(!quantized.losses.is_empty());
    let model = quantized.image.into_model(path).unwrap();
    model.check_golden().unwrap();
    let texts: Vec<&[u32]> = (0..3).map(|text| &batch.ids[batch.text(text)]).collect();
    // Six layers of rounding are chaotic: one value that rounds the other way moves a tenth of the next layer's
    // by a step. So what can be compared is how much the rounding costs, and one layer value by value.
    let oracle = Oracle::new(&config, &mut values, true);
    let rounded: Vec<f32> =
        texts.iter().flat_map(|ids| oracle.logits(ids)).map(|logit| logit as f32).collect();
    let mut session = Session::new(&model);
    let ours = session.logits(&Batch::from_texts(texts.iter().copied())).unwrap();
    let (cost, must) = (distance(ours, &expected[..12]), distance(&rounded, &expected[..12]));
    println!("int8 costs {cost:.2}, in exact arithmetic {must:.2}");
    assert!(cost <= 1.5 * must, "int8 costs {cost}, in exact arithmetic {must}");

    let config = ModelConfig { layers: config.layers[..1].to_vec(), ..config };
    let model = Model::from_values(&config, &mut values).unwrap();
    let exact = Session::new(&model).logits(&Batch::from_texts(texts.iter().copied())).unwrap().to_vec();
    let quantized = quantize(path, &config, &mut values, Quantization::INT8, &Extras::default()).unwrap();
    let model = quantized.image.into_model(path).unwrap();
    let values = std::cell::RefCell::new(values);
    let oracle = || Oracle::new(&config, |spec| values.borrow_mut()(spec), true);
    compare_with_oracle(&model, oracle, &texts, &exact);
}

#[test]
fn a_real_encoder_gives_the_same_bits_on_every_kernel_row() {
    let Some((config, values, batch, _)) = minilm() else { return };
    let path = Path::new("minilm");
    let quantized = quantize(path, &config, values, Quantization::INT8, &Extras::default()).unwrap();
    let model = quantized.image.into_model(path).unwrap();
    let logits = Kernels::available().map(|kernels| {
        println!("covers {}", kernels.isa());
        bits(Session::with(&model, kernels, 1).logits(&batch).unwrap())
    });
    let logits: Vec<_> = logits.collect();
    assert!(logits.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(logits[0].len(), batch.texts() * 4);
}
