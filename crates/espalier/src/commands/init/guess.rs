//! How an image becomes the model's input: guessed from the model and the data, and tried where there are labels.
use super::rows::{Found, Kind};
use crate::commands::observe::limits;
use data::{Layout, Loader, LoaderOptions, Preprocess, Size};
use graph::{Dim, Model};
use pipeline::actions::metric_record;
use report::record::MetricRecord;
use std::sync::Arc;
use train::{Executor, Figures, Mode, Reads};

/// Images to try guesses on; fewer for inputs with more than [`LARGE`] elements.
const TRIED: usize = 128;
const LARGE: usize = 50_000;

/// Guessed settings, with the reasons.
#[derive(Clone, Debug)]
pub(super) struct Guess {
    pub(super) preprocess: Preprocess,
    /// Lines for comments: one for each setting or reason.
    pub(super) reasons: Vec<String>,
    /// A warning for the user.
    pub(super) warning: Option<String>,
}

/// One way to scale pixels.
struct Scaling {
    name: &'static str,
    scale: f64,
    mean: Vec<f64>,
    std: Vec<f64>,
}

/// Shape of one input as the model declares it; `None` for an open axis.
pub(super) fn input_dims(model: &Model) -> Vec<Option<usize>> {
    let shape = model.free_inputs().first().and_then(|v| model.values[*v].shape().map(|s| s.to_vec()));
    shape.unwrap_or_default().iter().skip(1).map(Dim::known).collect()
}

/// The guess for a model's data.
pub(super) fn guess(model: &Model, found: &Found) -> Guess {
    match &found.kind {
        Kind::Arrays => Guess { preprocess: Preprocess::default(), reasons: vec![], warning: None },
        Kind::Sounds { length, alike } => sounds(model, *length, *alike),
        Kind::Images { channels, height, width, alike } => images(model, found, (*channels, *height, *width, *alike)),
    }
}

fn sounds(model: &Model, length: usize, alike: bool) -> Guess {
    let mut preprocess = Preprocess::default();
    let mut reasons = vec![];
    match (input_dims(model).last().copied().flatten(), alike) {
        (Some(n), _) => {
            preprocess.audio_length = Some(n);
            reasons.push(format!("audio_length: the model takes {n} samples; longer sounds are cut, shorter ones filled up with silence"));
        }
        (None, false) => {
            preprocess.audio_length = Some(length);
            reasons.push(format!("audio_length: the sounds differ in length, the first has {length} samples"));
        }
        (None, true) => {}
    }
    Guess { preprocess, reasons, warning: None }
}

fn images(model: &Model, found: &Found, (channels, height, width, alike): (usize, usize, usize, bool)) -> Guess {
    let dims = input_dims(model);
    let (layout, wanted, sides) = match dims.as_slice() {
        [Some(c @ (1 | 3)), h, w] => (Layout::Nchw, Some(*c), [*h, *w]),
        [h, w, Some(c @ (1 | 3))] => (Layout::Nhwc, Some(*c), [*h, *w]),
        [_, h, w] => (Layout::Nchw, None, [*h, *w]),
        _ => (Layout::Nchw, None, [None, None]),
    };
    let mut base = Preprocess { layout, ..Preprocess::default() };
    let mut reasons = vec![];
    if layout == Layout::Nhwc {
        reasons.push(format!("layout: the model's input is {}, channels last", shape_text(&dims)));
    }
    if let Some(c) = wanted.filter(|c| *c != channels) {
        base.channels = Some(c);
        reasons.push(format!("channels: the model takes {c}, the images have {channels}"));
    }
    match sides {
        [Some(h), Some(w)] if alike && (h, w) == (height, width) => {}
        [Some(h), Some(w)] => {
            base.size = Some(Size::Exact([h, w]));
            let seen = if alike { format!("the images are {height} x {width}") } else { "the images differ in size".into() };
            reasons.push(format!("size: the model takes {h} x {w} pixels, {seen}"));
        }
        _ if !alike => {
            base.size = Some(Size::Exact([height, width]));
            reasons.push(format!("size: the images differ in size and the model leaves it open; the first is {height} x {width}"));
        }
        _ => {}
    }
    let channels = base.channels.unwrap_or(channels);
    tried(model, found, base, reasons, channels, sides)
}

/// Tries ways to scale pixels, and to cut large images, on labelled images.
fn tried(model: &Model, found: &Found, base: Preprocess, mut reasons: Vec<String>, channels: usize, sides: [Option<usize>; 2]) -> Guess {
    let list = scalings(found, &base, channels);
    let candidates: Vec<(String, Preprocess)> = list.into_iter().map(|s| (s.name.to_string(), s.over(&base))).collect();
    let scored: Result<Vec<Score>, String> = candidates.iter().map(|(_, p)| score(model, found, p)).collect();
    let scores = match scored {
        Ok(scores) => scores,
        Err(why) => {
            let (name, preprocess) = candidates.into_iter().next().unwrap_or_default();
            reasons.push(format!("scale: {name}, the usual; it could not be tried: {why}"));
            return Guess { preprocess, reasons, warning: Some("the preprocessing is a guess that could not be tried".into()) };
        }
    };
    let best = (0..scores.len()).min_by(|a, b| scores[*a].order(&scores[*b])).unwrap_or(0);
    let mut chosen = candidates[best].1.clone();
    let told: Vec<String> = candidates.iter().zip(&scores).map(|((name, _), s)| format!("{name} {}", s.text())).collect();
    let n = scores[best].samples;
    reasons.push(format!("scale, mean, std: {} scored best of those tried on {n} images ({})", candidates[best].0, told.join(", ")));
    let mut reached = scores[best].clone();
    // Networks for large images are usually tested on the middle of a larger one.
    if let (Some(Size::Exact([h, w])), [Some(_), Some(_)]) = (base.size, sides)
        && h == w
        && h >= 128
    {
        let cut = Preprocess { size: Some(Size::ShorterSide(h * 8 / 7)), crop: Some([h, w]), ..chosen.clone() };
        if let Ok(s) = score(model, found, &cut)
            && s.order(&scores[best]).is_le()
        {
            reasons.push(format!(
                "crop: the middle of an image whose shorter side is {} scored {}, squeezing it to {h} x {w} {}",
                h * 8 / 7,
                s.text(),
                reached.text()
            ));
            reached = s;
            chosen = cut;
        }
    }
    let warning = found.task.guessing(model, &reached.figures, 3.0).map(|guess| {
        format!(
            "no preprocessing that was tried scores above chance ({} on {n} images; {guess} does as well): set [data.preprocess] as the model \
             was trained, and see that its outputs mean what the data set's targets mean (classes in the same order)",
            reached.text()
        )
    });
    Guess { preprocess: chosen, reasons, warning }
}

impl Scaling {
    fn over(self, base: &Preprocess) -> Preprocess {
        Preprocess { scale: self.scale, mean: self.mean, std: self.std, ..base.clone() }
    }
}

fn scalings(found: &Found, base: &Preprocess, channels: usize) -> Vec<Scaling> {
    let per_pixel = 1.0 / 255.0;
    let mut list = vec![Scaling { name: "pixels / 255", scale: per_pixel, mean: vec![], std: vec![] }];
    if channels == 3 {
        list.push(Scaling {
            name: "ImageNet's mean and std",
            scale: per_pixel,
            mean: vec![0.485, 0.456, 0.406],
            std: vec![0.229, 0.224, 0.225],
        });
    }
    list.push(Scaling { name: "-1..1", scale: per_pixel, mean: vec![0.5], std: vec![0.5] });
    list.push(Scaling { name: "0..255 as they are", scale: 1.0, mean: vec![], std: vec![] });
    if let Some((mean, std)) = statistics(found, base) {
        list.push(Scaling { name: "the data's own mean and std", scale: per_pixel, mean, std });
    }
    list
}

/// Mean and standard deviation of each channel over some training images, pixels divided by 255.
fn statistics(found: &Found, base: &Preprocess) -> Option<(Vec<f64>, Vec<f64>)> {
    let plain = Preprocess { layout: Layout::Nchw, ..base.clone() };
    let options = LoaderOptions { batch: 1, preprocess: plain, rows: Some(rows(found.train.len(), TRIED)), ..LoaderOptions::default() };
    let mut sums: Vec<(f64, f64, f64)> = vec![];
    for batch in Loader::new(found.train.clone(), options).ok()? {
        let batch = batch.ok()?;
        let image = batch.inputs.values().next()?;
        let values = image.to_f32_vec().ok()?;
        let channels = *image.shape().get(1)?;
        sums.resize(channels, (0.0, 0.0, 0.0));
        for (piece, sum) in values.chunks(values.len() / channels.max(1)).zip(&mut sums) {
            for v in piece.iter().map(|v| f64::from(*v)) {
                *sum = (sum.0 + v, sum.1 + v * v, sum.2 + 1.0);
            }
        }
    }
    let short = |v: f64| (v * 1e4).round() / 1e4;
    let mean: Vec<f64> = sums.iter().map(|s| short(s.0 / s.2)).collect();
    let std: Vec<f64> = sums.iter().zip(&mean).map(|(s, m)| short((s.1 / s.2 - m * m).max(0.0).sqrt())).collect();
    (!mean.is_empty() && std.iter().all(|s| *s > 0.0)).then_some((mean, std))
}

/// The score of a guess.
#[derive(Clone)]
struct Score {
    figures: Figures,
    metric: MetricRecord,
    /// For classes, the mean of the logarithm of the probability that the right one gets, negated; else 0.
    loss: f64,
    samples: u64,
}

impl Score {
    /// The better score is less: by the task's main metric, then by the loss.
    fn order(&self, other: &Score) -> std::cmp::Ordering {
        let (a, b) = (self.value(), other.value());
        self.metric.loss(b, a).total_cmp(&0.0).then(self.loss.total_cmp(&other.loss))
    }

    fn value(&self) -> f64 {
        self.figures.values.get(self.metric.key.as_str()).copied().unwrap_or(f64::NAN)
    }

    /// `91.73 %`, `MAE 0.2145`.
    fn text(&self) -> String {
        let label = if self.metric.percent { String::new() } else { format!("{} ", self.metric.label) };
        format!("{label}{}", self.metric.write(self.value()))
    }
}

fn rows(len: usize, count: usize) -> Arc<Vec<usize>> {
    let count = count.min(len);
    Arc::new((0..count).map(|i| i * len / count.max(1)).collect())
}

fn score(model: &Model, found: &Found, preprocess: &Preprocess) -> Result<Score, String> {
    if !found.labelled {
        return Err("the data have no labels".into());
    }
    let elements: usize = input_dims(model).iter().map(|d| d.unwrap_or(224)).product();
    let count = if elements > LARGE { TRIED / 2 } else { TRIED };
    let input = model.free_inputs().first().map(|v| model.values[*v].name.clone()).ok_or("the model has no input")?;
    let fixed = model.free_inputs().first().and_then(|v| model.values[*v].shape()?.first()?.known());
    let options = LoaderOptions {
        batch: fixed.unwrap_or(16).max(1),
        drop_last: fixed.is_some(),
        preprocess: preprocess.clone(),
        rows: Some(rows(found.test.len(), count)),
        input,
        classes: found.task.classes(model),
        ..LoaderOptions::default()
    };
    let executor = Executor::new(model).map_err(|e| e.to_string())?.within(limits());
    let output = found.task.output(model).or(model.graph.outputs.first().copied()).ok_or("the model has no output")?;
    let mut score = found.task.score(model, Reads::Output(output)).map_err(|e| e.to_string())?;
    let mut loss = 0.0;
    for batch in Loader::new(found.test.clone(), options).map_err(|e| e.to_string())? {
        let batch = train::Batch::from(batch.map_err(|e| e.to_string())?);
        let outputs = executor.run(&batch.inputs, Mode::FLOAT).map_err(|e| e.to_string())?;
        score.add(&train::by_value(model, &outputs), &batch).map_err(|e| e.to_string())?;
        if let (Some(labels), Some(logits)) = (batch.targets.get("label"), outputs.get(&model.values[output].name)) {
            let logits = logits.to_f32_vec().map_err(|e| e.to_string())?;
            loss += negative_log_likelihood(&logits, labels.as_slice::<i64>().map_err(|e| e.to_string())?);
        }
    }
    let figures = score.figures();
    if figures.samples == 0 {
        return Err("there are no images".into());
    }
    let metric = metric_record(found.task.member().as_ref());
    Ok(Score { samples: figures.samples, loss: loss / figures.samples as f64, figures, metric })
}

/// Sums over the rows; rows that are probabilities already are taken as such.
fn negative_log_likelihood(values: &[f32], labels: &[i64]) -> f64 {
    let width = values.len() / labels.len().max(1);
    let one = |(row, label): (&[f32], &i64)| {
        let Some(own) = usize::try_from(*label).ok().and_then(|l| row.get(l)) else { return 0.0 };
        let sum: f64 = row.iter().map(|v| f64::from(*v)).sum();
        if row.iter().all(|v| *v >= 0.0) && (sum - 1.0).abs() < 1e-3 {
            return -f64::from(own.max(1e-12)).ln();
        }
        let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let total: f64 = row.iter().map(|v| f64::from(v - top).exp()).sum();
        total.ln() - f64::from(own - top)
    };
    values.chunks(width.max(1)).zip(labels).map(one).sum()
}

/// `[N, 3, 32, 32]`.
pub(super) fn shape_text(dims: &[Option<usize>]) -> String {
    let dims: Vec<String> = dims.iter().map(|d| d.map_or("?".into(), |n| n.to_string())).collect();
    format!("[N, {}]", dims.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn likelihood_takes_logits_and_probabilities() {
        let probabilities = [0.7f32, 0.2, 0.1, 0.25, 0.5, 0.25];
        let expected = -(0.7f64.ln() + 0.25f64.ln());
        assert!((negative_log_likelihood(&probabilities, &[0, 2]) - expected).abs() < 1e-6);
        let logits: Vec<f32> = probabilities.iter().map(|p| p.ln() + 3.0).collect();
        assert!((negative_log_likelihood(&logits, &[0, 2]) - expected).abs() < 1e-6);
    }
}
