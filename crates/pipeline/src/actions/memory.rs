//! Memory that a file takes in a runtime, measured in a separate process.
use crate::StageError;
use std::path::{Path, PathBuf};
use std::process::Command;
use train::Named;

/// Number of runs that show a runtime's memory use.
const RUNS: &str = "3";

/// Measures the memory of files.
pub struct MemoryProbe {
    /// Path of the `espalier` program.
    pub program: PathBuf,
    /// Folder for files to measure.
    pub folder: PathBuf,
}

impl MemoryProbe {
    /// Bytes that loading a model from memory and running it takes, beyond the memory of the process before.
    ///
    /// # Errors
    /// If the file cannot be written, or the other process fails.
    pub fn bytes_of(&self, model: &[u8], runtime: &str, threads: usize, inputs: &Named) -> Result<u64, StageError> {
        let file = self.folder.join("measured.onnx");
        files::write(&file, model)?;
        let measured = self.file(&file, runtime, threads, inputs);
        std::fs::remove_file(&file).ok();
        measured
    }

    /// Bytes that loading a model file and running it takes, beyond the memory of the process before.
    ///
    /// # Errors
    /// If the other process fails, or the system does not tell.
    pub fn file(&self, file: &Path, runtime: &str, threads: usize, inputs: &Named) -> Result<u64, StageError> {
        let mut command = Command::new(&self.program);
        command.args(["bench", "infer"]).arg(file).args([
            "--json",
            "--runs",
            RUNS,
            "--runtime",
            runtime,
            "--threads",
            &threads.to_string(),
        ]);
        for (name, tensor) in inputs {
            let shape: Vec<String> = tensor.shape().iter().map(usize::to_string).collect();
            command.arg("--shape").arg(format!("{name}={}", shape.join(",")));
        }
        let out = command.output()?;
        let told: serde_json::Value = serde_json::from_slice(&out.stdout)?;
        let bytes = told.pointer("/result/session_memory_bytes").and_then(serde_json::Value::as_u64);
        bytes.ok_or_else(|| told.pointer("/error/message").and_then(|m| m.as_str()).unwrap_or("the system does not tell").into())
    }
}
