//! tmp driver
use espalier_pipeline::*;
struct P(std::time::Instant);
impl Observer for P {
    fn event(&mut self, e: &Event) {
        match e {
            Event::Progress { .. } => {}
            Event::StageFinished { record } => println!("{:.1}s {} acc {:?} bytes {:?} sparsity {:?} {:?}", self.0.elapsed().as_secs_f64(), record.name, record.shown_accuracy(), record.metrics.file_bytes, record.metrics.sparsity, record.notes),
            other => println!("{:.1}s {other:?}", self.0.elapsed().as_secs_f64()),
        }
    }
}
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let loaded = recipe::load(std::path::Path::new(&a[1]), &a[4..]).unwrap_or_else(|e| panic!("{e}"));
    let o = RunOptions { out: a[2].clone().into(), data: Some(a[3].clone().into()), ..Default::default() };
    match run(&loaded, &o, &mut P(std::time::Instant::now())) { Ok(r) => println!("{:#?}\n{}", r.stages.last().unwrap().deploy, r.seconds), Err(e) => println!("{e}") }
}
