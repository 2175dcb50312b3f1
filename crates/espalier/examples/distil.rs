//! A network of a quarter of the width learns from the trained one: its outputs and its attention maps.
//!
//! `cargo run --release -p espalier --example distil [TEACHER.onnx DATA]`; a student of another teacher is made for images.
mod common;

use espalier::distill::{AttentionTransfer, Distillation, DistillationSettings, Hinton, WeightedLoss};
use espalier::technique::Settings;
use espalier::train::{CrossEntropy, TrainContext, TrainSettings, class_scores, train};
use espalier::{deploy, zoo};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (teacher, data) = common::trained()?;
    let shape = teacher.values[teacher.free_inputs()[0]].shape().ok_or("the teacher does not say what it reads")?;
    let input = shape.iter().skip(1).map(|d| d.known().ok_or("the teacher's images have no fixed size")).collect::<Result<Vec<_>, _>>()?;
    let classes = class_scores(&teacher).ok_or("the teacher knows no classes")?;
    let mut student = zoo::build("resnet8", &zoo::ZooOptions { input, classes, width: 0.25, seed: 2 })?;
    student.metadata = teacher.metadata.clone();
    let soft = WeightedLoss::new(0.7, Hinton { temperature: 4.0, ..Hinton::default() }.choice()?)?;
    let attention = WeightedLoss::new(0.1, AttentionTransfer::default().choice()?)?;
    let losses = DistillationSettings { task_weight: 0.3, losses: vec![soft, attention] };
    let objective = Distillation::new(CrossEntropy::of(&student, 0.0)?, &student, &teacher, &losses, 0)?;
    let settings = TrainSettings { epochs: 10, ..TrainSettings::default() };
    let samples = data.train(&student)?;
    train(&mut student, &samples, &objective, &settings, &mut TrainContext::default())?;
    let file = deploy::format::export(&student)?;
    std::fs::write("student.onnx", &file.bytes)?;
    println!(
        "score {:.4} of the teacher, {:.4} of student.onnx ({} bytes)",
        data.score(&teacher)?,
        data.score_file(&file)?,
        file.bytes.len()
    );
    Ok(())
}
