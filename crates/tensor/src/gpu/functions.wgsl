// Functions that WGSL lacks, and what every kernel starts with.
//
// Parameters come as 32-bit words in `p` (binding 0); floats among them by their bits.
@group(0) @binding(0) var<storage, read> p: array<u32>;

// Number of the invocation in a grid that may be folded over two axes.
fn linear(group: vec3<u32>, groups: vec3<u32>, local: u32) -> u32 {
    return (group.y * groups.x + group.x) * 256u + local;
}

// By their bits: a compiler may assume that arithmetic sees neither.
fn is_nan(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}
fn is_infinite(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) == 0x7f800000u;
}

fn larger(x: f32, y: f32) -> f32 {
    return select(y, x, x > y || is_nan(x));
}
fn smaller(x: f32, y: f32) -> f32 {
    return select(y, x, x < y || is_nan(x));
}

// Without overflow on either side.
fn logistic(x: f32) -> f32 {
    let e = exp(-abs(x));
    return select(1.0, e, x < 0.0) / (1.0 + e);
}
fn hyperbolic_tangent(x: f32) -> f32 {
    let e = exp(-2.0 * abs(x));
    // Below, the difference from one would lose the digits.
    let series = x - x * x * x * (1.0 / 3.0 - x * x * (2.0 / 15.0));
    return select(sign(x) * (1.0 - e) / (1.0 + e), series, abs(x) < 0.1);
}

// Gauss error function: Taylor's series near zero, elsewhere Abramowitz & Stegun 1964, 7.1.26 (error below 1.5e-7).
fn error_function(x: f32) -> f32 {
    let s = x * x;
    let near = x * (1.12837917 - s * (0.376126389 - s * (0.112837917 - s * (0.0268661706 - s * 0.00522397762))));
    let t = 1.0 / (1.0 + 0.3275911 * abs(x));
    let tail = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429)))) * exp(-s);
    return select(sign(x) * (1.0 - tail), near, abs(x) < 0.3);
}

// x to the power y, also for negative x where y is an integer.
fn power(x: f32, y: f32) -> f32 {
    if (y == 2.0) { return x * x; }
    if (y == 1.0) { return x; }
    if (y == 0.5) { return sqrt(x); }
    if (y == 0.0) { return 1.0; }
    let magnitude = pow(abs(x), y);
    if (x >= 0.0) { return magnitude; }
    let even = round(y * 0.5) * 2.0 == y;
    let whole = round(y) == y;
    if (!whole) { return bitcast<f32>(0x7fc00000u + p[0] * 0u); }
    return select(-magnitude, magnitude, even);
}
