// The tiled matrix product behind every large product: a workgroup of 16 x 16 invocations computes ROWS x 64 elements. In
// steps of 16 along k both operands are brought to workgroup memory (neighbouring invocations read neighbouring elements of
// a row of the left one, of a column index of the right one), and each invocation keeps ROWS / 16 x 4 sums in registers.
// With several splits each workgroup takes a part of k and writes a partial sum; they are folded after it.
//
// The problem (matmul.wgsl, conv_*.wgsl) says what left(z, row, k), right(z, k, column) and first(z, row, column), which is
// added, are and where an element goes: place(z, row, column).
// Parameters: rows, columns, k, problems z, splits, length of a split, elements of the result; the problem's from word 8 on.
const THICK: u32 = ROWSu / 16u;
var<workgroup> tile_a: array<f32, ROWS * 16>;
var<workgroup> tile_b: array<f32, 1024>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let rows = p[0];
    let columns = p[1];
    let z = group.z / p[4];
    let split = group.z % p[4];
    let row0 = group.y * ROWSu;
    let column0 = group.x * 64u;
    let begin = split * p[5];
    let end = min(p[2], begin + p[5]);
    let my_row = local / 16u;
    let my_column = local % 16u;
    var sums: array<vec4<f32>, THICK>;
    for (var k0 = begin; k0 < end; k0 += 16u) {
        for (var j = 0u; j < THICK; j += 1u) {
            let row = my_row + 16u * j;
            var v = 0.0;
            if (row0 + row < rows && k0 + my_column < end) {
                v = left(z, row0 + row, k0 + my_column);
            }
            tile_a[my_column * ROWSu + row] = v;
        }
        for (var j = 0u; j < 4u; j += 1u) {
            let e = local + 256u * j;
            let column = e % 64u;
            let k = k0 + e / 64u;
            var v = 0.0;
            if (column0 + column < columns && k < end) {
                v = right(z, k, column0 + column);
            }
            tile_b[e] = v;
        }
        workgroupBarrier();
        for (var k = 0u; k < 16u; k += 1u) {
            let at = k * 64u + my_column;
            let b = vec4<f32>(tile_b[at], tile_b[at + 16u], tile_b[at + 32u], tile_b[at + 48u]);
            for (var j = 0u; j < THICK; j += 1u) {
                sums[j] += tile_a[k * ROWSu + my_row + 16u * j] * b;
            }
        }
        workgroupBarrier();
    }
    for (var j = 0u; j < THICK; j += 1u) {
        let row = row0 + my_row + 16u * j;
        for (var i = 0u; i < 4u; i += 1u) {
            let column = column0 + my_column + 16u * i;
            if (row < rows && column < columns) {
                var v = sums[j][i];
                if (split == 0u) {
                    v += first(z, row, column);
                }
                target_[split * p[6] + place(z, row, column)] = v;
            }
        }
    }
}
