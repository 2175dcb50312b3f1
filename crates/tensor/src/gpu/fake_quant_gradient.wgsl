// Gradients of fake quantization, one invocation an element: by x straight through inside the range, and what the element
// adds to the gradient by its scale (Esser et al. 2020, eq. 3) and by its zero point (Bhalgat et al. 2020, eq. 7); the
// latter two are summed by the reductions.
// Parameters: elements, length of the runs that share a scale, scales, bits of qmin and qmax, 1 where the scale's and 1 where
// the zero point's are wanted.
@group(0) @binding(1) var<storage, read> source: array<f32>;
@group(0) @binding(2) var<storage, read> scale: array<f32>;
@group(0) @binding(3) var<storage, read> zero_point: array<f32>;
@group(0) @binding(4) var<storage, read> dy: array<f32>;
@group(0) @binding(5) var<storage, read_write> dx: array<f32>;
@group(0) @binding(6) var<storage, read_write> by_scale: array<f32>;
@group(0) @binding(7) var<storage, read_write> by_zero: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear(group, groups, local);
    if (i >= p[0]) { return; }
    let c = i / p[1] % p[2];
    let x = source[i] / scale[c];
    let zero = zero_point[c];
    let q = round(x) + zero;
    let lo = bitcast<f32>(p[3]);
    let hi = bitcast<f32>(p[4]);
    let inside = q >= lo && q <= hi;
    let d = dy[i];
    dx[i] = select(0.0, d, inside);
    if (p[5] != 0u) {
        by_scale[i] = d * select(select(hi, lo, q < lo) - zero, q - zero - x, inside);
    }
    if (p[6] != 0u) {
        by_zero[i] = d * select(-scale[c], 0.0, inside);
    }
}
