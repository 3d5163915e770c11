-- Whether a write would be taken now. Writes nothing.
refuse_when_full()
return 'OK'
