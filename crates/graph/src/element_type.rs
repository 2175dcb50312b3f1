//! The numbers that ONNX gives element types (`TensorProto.DataType`): in files, and in attributes such as Cast's `to`.
use tensor::DType;

const CODES: [(i64, DType); 26] = [
    (1, DType::F32),
    (2, DType::U8),
    (3, DType::I8),
    (4, DType::U16),
    (5, DType::I16),
    (6, DType::I32),
    (7, DType::I64),
    (8, DType::String),
    (9, DType::Bool),
    (10, DType::F16),
    (11, DType::F64),
    (12, DType::U32),
    (13, DType::U64),
    (14, DType::C64),
    (15, DType::C128),
    (16, DType::BF16),
    (17, DType::F8E4M3FN),
    (18, DType::F8E4M3FNUZ),
    (19, DType::F8E5M2),
    (20, DType::F8E5M2FNUZ),
    (21, DType::U4),
    (22, DType::I4),
    (23, DType::F4E2M1),
    (24, DType::F8E8M0),
    (25, DType::U2),
    (26, DType::I2),
];

/// The element type of a number.
pub fn dtype_of_code(code: i64) -> Option<DType> {
    CODES.iter().find(|(c, _)| *c == code).map(|(_, d)| *d)
}

/// The number of an element type.
pub fn code_of_dtype(dtype: DType) -> i64 {
    CODES.iter().find(|(_, d)| *d == dtype).map_or(0, |(c, _)| *c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_comes_back() {
        for code in 1..=26 {
            assert_eq!(dtype_of_code(code).map(code_of_dtype), Some(code));
        }
        assert_eq!((dtype_of_code(0), dtype_of_code(27)), (None, None));
    }
}
