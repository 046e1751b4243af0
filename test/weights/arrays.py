"""Makes arrays.npz and arrays.mat beside this file, with NumPy and SciPy: python3 test/weights/arrays.py"""
import os

import numpy as np
import scipy.io

folder = os.path.dirname(os.path.abspath(__file__))
rows = np.arange(6, dtype='<f8').reshape(2, 3) / 4
np.savez_compressed(
    f'{folder}/arrays.npz',
    rows=rows,
    columns=np.asfortranarray(rows),
    single=np.array([1.5, -2], dtype='<f4'),
    whole=np.array([3, 4], dtype='<i8'),
    scalar=np.float64(7),
    text=np.array(['a', 'b']),
)
scipy.io.savemat(
    f'{folder}/arrays.mat',
    dict(rows=rows, whole=np.array([[3, 4]], dtype='int32'), bytes=np.array([[1, 2, 255]], dtype='uint8'), text='abc'),
    do_compression=True,
)
scipy.io.savemat(f'{folder}/plain.mat', dict(rows=rows, x=np.array([[0.5]])), do_compression=False)
