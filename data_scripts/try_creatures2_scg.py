"""objness.py WEIGHTS…: SCG + PAMR from the true head discs, without any class training."""
import sys,numpy as np,torch,torch.nn.functional as F
torch.set_num_threads(1); from rsepm_edu.data.creature_drawing import *
from rsepm_edu.data.transforms import normalise
from rsepm_edu.methods.scg import scg
from rsepm_edu.methods.pamr import pamr
from rsepm_edu.methods.cam import normalize_cam
N=120
ims,ms,hs=[],[],[]
for i in range(N):
    g=np.random.default_rng([0,0,i]); sc=plan(g,96); im,m=render(sc); h=np.zeros((5,96,96),np.float32)
    for c in sc.creatures: h[c.label]=np.maximum(h[c.label],head_disc(c,96))
    ims.append(im); ms.append(m); hs.append(h)
X=normalise(torch.from_numpy(np.stack(ims)).permute(0,3,1,2)); M=torch.from_numpy(np.stack(ms)).long(); H=torch.from_numpy(np.stack(hs))
tags=H.amax((2,3)); small=F.interpolate(X,(48,48),mode='bilinear',antialias=True)
def score(maps):
    best=(0,)
    maps=F.interpolate(maps,(96,96),mode='bilinear')*tags[:,:,None,None]
    for t in np.arange(0.05,0.96,0.05):
        v,k=maps.max(1); lab=torch.where(v>=t,k+1,0); ok=M!=255
        conf=torch.bincount((M[ok]*6+lab[ok]),minlength=36).reshape(6,6).double()
        iou=conf.diag()/(conf.sum(0)+conf.sum(1)-conf.diag()); fp=(conf.sum(0)-conf.diag())/(conf.sum(0)+conf.sum(1)-conf.diag()); fn=(conf.sum(1)-conf.diag())/(conf.sum(0)+conf.sum(1)-conf.diag())
        if iou.mean()*100>best[0]: best=(iou.mean().item()*100,fp[1:].mean().item(),fn[1:].mean().item(),t)
    return "%.1f (%.2f/%.2f @%.2f)"%best
seed=F.adaptive_avg_pool2d(H,(12,12)); seed=F.avg_pool2d(F.pad(seed,(1,1,1,1)),3,1); seed=normalize_cam(seed,tags)
def P(m): return normalize_cam(pamr(small,F.interpolate(m,(48,48),mode='bilinear')),tags)
