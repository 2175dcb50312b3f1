// One convolution of up to three spatial axes. Parameters from word 8 on: input channels, output channels, groups, then of
// depth, height and width each: input size, output size, kernel size, stride, dilation, padding before.
fn taps() -> u32 {
    return p[17] * p[18] * p[19];
}
fn pixels_in() -> u32 {
    return p[11] * p[12] * p[13];
}
fn pixels_out() -> u32 {
    return p[14] * p[15] * p[16];
}

// The input pixel that an output pixel sees through a tap of the kernel, -1 where that is padding.
fn seen(pixel: u32, tap: u32) -> i32 {
    var pixel_rest = pixel;
    var tap_rest = tap;
    var at = 0i;
    var size = 1i;
    for (var axis = 2u; axis < 3u; axis -= 1u) {
        let here = i32(pixel_rest % p[14u + axis] * p[20u + axis] + tap_rest % p[17u + axis] * p[23u + axis]) - i32(p[26u + axis]);
        if (here < 0i || here >= i32(p[11u + axis])) { return -1i; }
        at += here * size;
        size *= i32(p[11u + axis]);
        pixel_rest /= p[14u + axis];
        tap_rest /= p[17u + axis];
    }
    return at;
}

// The output pixel that sees an input pixel through a tap of the kernel, -1 where there is none.
fn seeing(pixel: u32, tap: u32) -> i32 {
    var pixel_rest = pixel;
    var tap_rest = tap;
    var at = 0i;
    var size = 1i;
    for (var axis = 2u; axis < 3u; axis -= 1u) {
        let stride = i32(p[20u + axis]);
        let here = i32(pixel_rest % p[11u + axis] + p[26u + axis]) - i32(tap_rest % p[17u + axis] * p[23u + axis]);
        if (here < 0i || here % stride != 0i || here / stride >= i32(p[14u + axis])) { return -1i; }
        at += here / stride * size;
        size *= i32(p[14u + axis]);
        pixel_rest /= p[11u + axis];
        tap_rest /= p[17u + axis];
    }
    return at;
}
