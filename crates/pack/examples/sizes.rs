//! Sizes and times of packed files; prints Markdown.
//!
//! `cargo run --release -p espalier-pack --example sizes -- FILE...`; beside them `xz -9` and `zstd -19 --ultra`, where they are
//! installed.
use espalier_pack as pack;
use std::error::Error;
use std::process::Command;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    println!("| file | bytes | packed | of it numbers | xz -9 | zstd -19 | packed / xz | pack, MB/s | unpack, MB/s |");
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|");
    for path in std::env::args().skip(1) {
        let file = std::fs::read(&path)?;
        // Packing checks itself by unpacking.
        let began = Instant::now();
        let (archive, sizes) = pack::pack(&file)?;
        let both = began.elapsed().as_secs_f64();
        let began = Instant::now();
        pack::unpack(&archive)?;
        let unpacking = began.elapsed().as_secs_f64();
        let other = |command: &str, arguments: &[&str]| {
            let found = Command::new(command).args(arguments).arg(&path).output().ok().filter(|o| o.status.success());
            found.map(|o| o.stdout.len())
        };
        let (xz, zstd) = (other("xz", &["-9", "-k", "-c"]), other("zstd", &["-19", "--ultra", "-q", "-c"]));
        let or = |n: Option<usize>| n.map_or("-".into(), |n| n.to_string());
        let rate = |seconds: f64| file.len() as f64 / 1e6 / seconds;
        println!(
            "| {} | {} | {} | {} of {} | {} | {} | {} | {:.1} | {:.1} |",
            path.rsplit('/').next().unwrap_or(&path),
            sizes.file,
            sizes.archive,
            sizes.coded_numbers,
            sizes.numbers,
            or(xz),
            or(zstd),
            xz.map_or("-".into(), |xz| format!("{:.3}", sizes.archive as f64 / xz as f64)),
            rate(both - unpacking),
            rate(unpacking),
        );
    }
    Ok(())
}
