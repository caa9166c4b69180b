"""trial.py NAME '{"init":path|null,"pre":path|null,"cam":1,"root":..., "score":80, "at":[..]}' KEY=VALUE…"""
import json,sys,time,torch
torch.set_num_threads(1)
import cv2; cv2.setNumThreads(1)
from pathlib import Path
from rsepm_edu.data.creatures import ensure_creatures
from rsepm_edu.data.voc import VocDataset
from rsepm_edu.evaluation.scoring import score_seeds
from rsepm_edu.evaluation.seed_options import SeedOptions
from rsepm_edu.training import loop
from rsepm_edu.training.config import preset
name,O=sys.argv[1],json.loads(sys.argv[2]); ch={}
for kv in sys.argv[3:]:
    k,v=kv.split("="); ch[k]=json.loads(v) if v[0] in "0123456789[-" else v
    if isinstance(ch[k],list): ch[k]=tuple(ch[k])
config=preset("creatures-cpu",**({"panel_every":0,"checkpoint_minutes":0,"checkpoint_every":100}|ch))
root=Path(O["root"]) if O.get("root") else ensure_creatures(O.get("data"))
log=open("runs/creatures2/log.md","a")
def say(*a): t=" ".join(map(str,a)); print(t,flush=True); log.write(t+"\n"); log.flush()
say("#",name,O,ch,time.strftime("%H:%M")); t0=time.process_time()
ends={config.rs_start,config.mix_start,config.epochs}|set(O.get("at",[]))
def score(tr,row):
    say(row["epoch"],row["phase"],{k:round(v,3) for k,v in row["losses"].items()},f"cpu {time.process_time()-t0:.0f}")
    if tr.epoch not in ends: return
    torch.save({"network":tr.network.state_dict(),"ema":tr.average.network.state_dict(),"epoch":tr.epoch},f"runs/creatures2/{name}-{tr.epoch}.pt")
    for split in ("train",)+(("val",) if tr.epoch==config.epochs else ()):
        d=VocDataset(root,split,masks=True); d=d.take(range(0,len(d),max(1,len(d)//O.get("score",80))))
        ths=[config.scg_threshold]+([0.5,0.7,0.9] if tr.epoch==config.rs_start else [])
        for th in ths:
            s=score_seeds(tr.average.network,d,SeedOptions(scales=(1.0,),decode=tr.epoch>config.rs_start,scg_threshold=th,pamr_stride=2),progress=False)
            rows=s.rows(seed=0)
            if th!=ths[0]: rows=[r for r in rows if "scg" in r.method]
            say(f"== {name} {split} ep {tr.epoch} scg {th}: "+"; ".join(f"{r.method} {r.miou:.1f} ({r.fp:.3f}/{r.fn:.3f} @{r.threshold})" for r in rows))
def start(tr,ds):
    nets=(tr.network,tr.average.network)
    if O.get("pre"):
        for n in nets: n.backbone.load_state_dict(torch.load(O["pre"])["bb"])
    if O.get("init"):
        s=torch.load(O["init"]); tr.network.load_state_dict(s["network"],strict=False); tr.average.network.load_state_dict(s["ema"],strict=False); tr.epoch=s["epoch"]
    if O.get("shipped"):
        from rsepm_edu.course.networks import load_lesson_network
        k={a:v for a,v in load_lesson_network("creatures_cam").state_dict().items() if not a.startswith("decoder.")}
        for n in nets: n.load_state_dict(k,strict=False)
        tr.epoch=config.rs_start
loop.train(config,root,Path("runs/creatures2/runs")/name,progress=False,on_epoch=score,on_start=start)
