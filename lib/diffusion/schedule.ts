/** Steps of the training noise schedule of Stable Diffusion. */
export const TRAIN_STEPS = 1000;

/**
 * Cumulative products of (1 - beta) for Stable Diffusion's scaled-linear schedule: betas are the squares of numbers evenly
 * spaced from sqrt(0.00085) to sqrt(0.012). Float64; entry t belongs to timestep t.
 */
export function alphasCumprod(steps = TRAIN_STEPS): Float64Array {
  const first = Math.sqrt(0.00085);
  const last = Math.sqrt(0.012);
  const products = new Float64Array(steps);
  let product = 1;
  for (let t = 0; t < steps; t++) {
    const root = first + ((last - first) * t) / (steps - 1);
    product *= 1 - root * root;
    products[t] = product;
  }
  return products;
}
