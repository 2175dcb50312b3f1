//! Images a second of one training epoch of CIFAR-10 (crop with padding 4, flip, normalise): `epoch_rate FOLDER [WORKERS] [CACHE_BYTES]`.
use espalier_data::{Augment, Loader, LoaderOptions, OpenOptions, Preprocess, Shuffle, open};
use std::error::Error;
use std::path::Path;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("usage: epoch_rate FOLDER [WORKERS] [CACHE_BYTES]")?;
    let workers = arguments.next().map_or(Ok(2), |text| text.parse())?;
    let mut options = OpenOptions::split("train");
    if let Some(bytes) = arguments.next() {
        options.cache_bytes = bytes.parse()?;
    }
    let dataset = open(Path::new(&folder), &options)?;
    let (mean, std) = (vec![0.485, 0.456, 0.406], vec![0.229, 0.224, 0.225]);
    for epoch in 0..3 {
        let options = LoaderOptions {
            batch: 128,
            shuffle: Shuffle::On { buffer: 4096 },
            epoch,
            workers,
            augment: Augment { crop_padding: 4, flip: true },
            preprocess: Preprocess { mean: mean.clone(), std: std.clone(), ..Preprocess::default() },
            ..LoaderOptions::default()
        };
        let start = Instant::now();
        let mut images = 0;
        for batch in Loader::new(dataset.clone(), options)? {
            images += batch?.rows.len();
        }
        let seconds = start.elapsed().as_secs_f64();
        println!("epoch {epoch}: {images} images in {seconds:.2} s with {workers} workers: {:.0} images/s", images as f64 / seconds);
    }
    Ok(())
}
