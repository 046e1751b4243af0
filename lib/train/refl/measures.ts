import { featureDistance } from '../../eval/quality.ts';
import { eyeDistance, inner } from '../../faces/align.ts';
import { loadNetwork } from '../../faces/networks.ts';
import { affine, clamp, sqrt, square, sub } from '../../graph/ops/elementwise.ts';
import { slice } from '../../graph/ops/layout.ts';
import { mean, sum } from '../../graph/ops/reduce.ts';
import { resize } from '../../graph/ops/resample.ts';
import type { Tensor } from '../../graph/tensor.ts';
import { psnr, ssim } from '../../metrics/fidelity.ts';
import { FaceFeatures, FaceLandmarks, FaceRecognition } from '../../models/faceapi.ts';
import type { Judged } from '../../reward/reward.ts';
import type { Parameters } from '../../runtime/index.ts';
import type { Measures } from './validation.ts';

/** How far images are from their photographs in root mean square and in structure, [N]. */
export const plainDistances: Measures = {
  rmse: ({ images, targets }) => sqrt(affine(mean(square(sub(images, targets)), [1, 2, 3]), 1, 1e-12)),
  structure: ({ images, targets }) => affine(ssim(images, targets), -1, 1),
};

/** What the networks look at in aligned faces [N, H, W, 3] in [0, 1]: brows to chin, `side` pixels a side, 0 to 255. */
function face(x: Tensor, side: number): Tensor {
  const [n, height, width, channels] = x.shape;
  const at = (share: number, whole: number): number => Math.round(share * whole);
  const window = slice(
    x,
    [0, at(inner.top, height), at(inner.left, width), 0],
    [n, at(inner.side, height), at(inner.side, width), channels],
  );
  return affine(clamp(resize(window, [side, side], { mode: 'bilinear', antialias: true }), 0, 1), 255);
}

const apart = (a: Tensor, b: Tensor): Tensor => sqrt(sum(square(sub(a, b)), [-1]));

/**
 * Distances of restored aligned faces to their photographs by networks of face-api, which no restorer here trains by:
 * `perceptual` is {@link featureDistance}; `identity` the distance of the 128 numbers that tell people apart, rarely under 0.5
 * for two of them; `landmarks` how far 68 points have moved on average, in per cent of the distance of the eyes.
 */
export async function faceDistances(parameters: Parameters): Promise<Measures> {
  const recognition = await loadNetwork(parameters, 'face_recognition', () => new FaceRecognition());
  const points = await loadNetwork(parameters, 'face_landmark_68', () => new FaceLandmarks());
  const both = ({ images, targets }: Judged, of: (x: Tensor) => Tensor): Tensor => apart(of(images), of(targets));
  const percent = (100 * inner.side) / eyeDistance;
  return {
    perceptual: ({ images, targets }) => featureDistance(recognition, images, targets),
    identity: (judged) => both(judged, (x) => recognition.forward(face(x, FaceRecognition.size))),
    landmarks: (judged) =>
      affine(
        mean(
          both(judged, (x) => points.forward(face(x, FaceLandmarks.size))),
          [1],
        ),
        percent,
      ),
  };
}

/**
 * Distance to the photographs by features of face-api's expression network, at the images' own size: what stands in for LPIPS,
 * whose files have to be brought, as something to train by.
 */
export async function expressionDistance(parameters: Parameters): Promise<Measures[string]> {
  const network = await loadNetwork(parameters, 'face_expression', () => new FaceFeatures());
  return ({ images, targets }) => featureDistance(network, images, targets, images.shape[1]);
}

/** PSNR in dB, over RGB. */
export const fidelity: Measures[string] = ({ images, targets }) => psnr(clamp(images, 0, 1), targets);
